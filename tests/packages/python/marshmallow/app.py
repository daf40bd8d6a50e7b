from marshmallow import Schema, ValidationError, fields, validate
from tidegate_policy import Allow, Request, lookup, unauthorized


class Session(Schema):
    user = fields.String(required=True, validate=validate.Length(min=1))
    expires = fields.AwareDateTime(required=True)
    roles = fields.List(fields.String(), load_default=list)


def authorize(request: Request, channels: list[str]) -> Allow:
    text = lookup.get(f"session:{request.cookies.get('session', '')}")
    try:
        session = Session().loads(text or "{}")
    except ValidationError:
        unauthorized()
    return Allow(session["user"], expires_at=session["expires"])
