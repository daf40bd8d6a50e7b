import jwt
from tidegate_policy import Allow, Request, settings, unauthorized


def authorize(request: Request, channels: list[str]) -> Allow:
    try:
        claims = jwt.decode(request.bearer or "", settings.get("SECRET"), algorithms=["HS256"])
    except jwt.InvalidTokenError:
        unauthorized("Bad token")
    return Allow(claims["sub"], expires_at=claims["exp"] * 1000)
