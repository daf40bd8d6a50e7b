from django.core import signing
from tidegate_policy import Allow, Request, settings, unauthorized

SALT = "django.contrib.sessions.backends.signed_cookies"


def authorize(request: Request, channels: list[str]) -> Allow:
    cookie, key = request.cookies.get("sessionid", ""), settings.get("SECRET")
    try:
        session = signing.loads(cookie, key=key, salt=SALT, max_age=3600, fallback_keys=[])
    except signing.BadSignature:
        unauthorized()
    return Allow(session["user"])
