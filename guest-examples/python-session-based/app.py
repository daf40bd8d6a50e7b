"""A Tidegate policy that admits clients with a session."""

from tidegate_policy import Allow, Request, answer, lookup, unauthorized


def authorize(request: Request, channels: list[str]) -> Allow:
    """Allows every channel to clients with a session, and no channel to others."""
    session_id = request.cookies.get("session")
    if not session_id:
        unauthorized(reason="no session")
    try:
        session = lookup.get_json(f"session:{session_id}")
    except ValueError:  # not JSON
        session = None
    match session:
        case {"id": str(user)} if user:
            answer.reason(f"{user}: {len(channels)} channels")
            return Allow(user)
    unauthorized(reason="unknown session")
