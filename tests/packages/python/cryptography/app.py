import cryptography
from tidegate_policy import Allow, Request


def authorize(request: Request, channels: list[str]) -> Allow:
    return Allow("ada", headers={"x-package": cryptography.__name__})
