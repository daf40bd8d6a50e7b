import redis
from redis.backoff import NoBackoff
from redis.retry import Retry
from tidegate_policy import Allow, Request

store = redis.Redis(retry=Retry(NoBackoff(), 0))


def authorize(request: Request, channels: list[str]) -> Allow:
    return Allow(store.get(f"session:{request.cookies.get('session', '')}"))
