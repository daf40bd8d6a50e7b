"""A Tidegate policy that allows users their own channels."""

from tidegate_policy import Allow, Request, answer, forbidden, lookup, unauthorized


def authorize(request: Request, channels: list[str]) -> Allow:
    """Checks the session first. Then the first channel that the user may not read determines the rejection."""
    user = sign_in(request)
    for channel in channels:
        if channel not in ("default", user) and not channel.startswith(f"{user}-"):
            forbidden("You can only access your own channels", reason=f"{channel} is not a channel of {user}")
    answer.reason(f"{user}: {len(channels)} channels")
    return Allow(user)


def sign_in(request: Request) -> str:
    """Returns the id of the user whose session the cookie names."""
    session_id = request.cookies.get("session")
    if not session_id:
        unauthorized(reason="no session")
    try:
        session = lookup.get_json(f"session:{session_id}")
    except ValueError:  # not JSON
        session = None
    match session:
        case {"id": str(user)} if user:
            return user
    unauthorized(reason="unknown session")
