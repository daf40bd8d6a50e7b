import requests
from tidegate_policy import Allow, Request

client = requests.Session()


def authorize(request: Request, channels: list[str]) -> Allow:
    session = client.get("https://api.example/session", cookies={"session": request.cookies.get("session", "")})
    return Allow(session.json()["user"])
