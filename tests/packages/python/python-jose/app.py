from jose import JWTError, jwt
from tidegate_policy import Allow, Request, settings, unauthorized


def authorize(request: Request, channels: list[str]) -> Allow:
    try:
        claims = jwt.decode(request.bearer or "", settings.get("PUBLIC_KEY"), algorithms=["RS256"])
    except JWTError:
        unauthorized("Bad token")
    return Allow(claims["sub"])
