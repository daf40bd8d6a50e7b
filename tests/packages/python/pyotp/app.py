import pyotp
from tidegate_policy import Allow, Request, settings, unauthorized


def authorize(request: Request, channels: list[str]) -> Allow:
    if not pyotp.TOTP(settings.get("SECRET")).verify(request.headers.get("x-code", "")):
        unauthorized()
    return Allow("ada")
