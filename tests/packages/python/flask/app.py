import flask
from tidegate_policy import Allow, Request


def authorize(request: Request, channels: list[str]) -> Allow:
    return Allow("ada", headers={"x-package": flask.__name__})
