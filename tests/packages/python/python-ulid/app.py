from tidegate_policy import Allow, Request, context, unauthorized
from ulid import ULID


def authorize(request: Request, channels: list[str]) -> Allow:
    try:
        session = ULID.from_str(request.cookies.get("session", ""))
    except ValueError:
        unauthorized()
    if not 0 <= context.now() - session.milliseconds < 3_600_000 or ULID() == ULID():
        unauthorized("Old session")
    return Allow(str(session))
