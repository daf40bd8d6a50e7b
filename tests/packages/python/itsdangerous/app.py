import hashlib

from itsdangerous import BadSignature, URLSafeTimedSerializer
from tidegate_policy import Allow, Request, settings, unauthorized

FLASK = {"key_derivation": "hmac", "digest_method": hashlib.sha1}


def authorize(request: Request, channels: list[str]) -> Allow:
    signer = URLSafeTimedSerializer(settings.get("SECRET"), salt="cookie-session", signer_kwargs=FLASK)
    try:
        session = signer.loads(request.cookies.get("session", ""), max_age=3600)
    except BadSignature:
        unauthorized()
    return Allow(session["user"])
