"""A Tidegate policy that lets in whoever has a session."""

from tidegate_policy import Allow, Request, answer, lookup, unauthorized


def authorize(request: Request, channels: list[str]) -> Allow:
    """With a session every channel is allowed, without one none is."""
    session_id = request.cookies.get("session")
    if not session_id:
        unauthorized(reason="no session")
    try:
        session = lookup.get_json(f"session:{session_id}")
    except ValueError:  # it is no JSON
        session = None
    match session:
        case {"id": str(user)} if user:
            answer.reason(f"{user}: {len(channels)} channels")
            return Allow(user)
    unauthorized(reason="unknown session")
