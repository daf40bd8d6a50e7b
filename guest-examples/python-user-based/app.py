"""A Tidegate policy where every user has channels of their own."""

from tidegate_policy import Allow, Request, answer, forbidden, lookup, unauthorized


def authorize(request: Request, channels: list[str]) -> Allow:
    """The session comes first, whatever the channels are; then the first channel that fails decides."""
    user = sign_in(request)
    for channel in channels:
        if channel not in ("default", user) and not channel.startswith(f"{user}-"):
            forbidden("You can only access your own channels", reason=f"{channel} is not a channel of {user}")
    answer.reason(f"{user}: {len(channels)} channels")
    return Allow(user)


def sign_in(request: Request) -> str:
    """The id of the user whose session the cookie names."""
    session_id = request.cookies.get("session")
    if not session_id:
        unauthorized(reason="no session")
    try:
        session = lookup.get_json(f"session:{session_id}")
    except ValueError:  # it is no JSON
        session = None
    match session:
        case {"id": str(user)} if user:
            return user
    unauthorized(reason="unknown session")
