"""A Tidegate policy with sessions, roles and teams."""

from typing import NamedTuple

from tidegate_policy import Allow, Request, answer, forbidden, lookup, unauthorized


def authorize(request: Request, channels: list[str]) -> Allow:
    """Checks the session first. Then the first channel that the user may not read determines the rejection."""
    user = sign_in(request)
    for channel in channels:
        check(user, channel)
    answer.reason(f"{user.id}: {len(channels)} channels")
    return Allow(user.id)


class User(NamedTuple):
    id: str
    is_admin: bool


def sign_in(request: Request) -> User:
    """Returns the user whose session the cookie names."""
    session_id = request.cookies.get("session")
    if not session_id:
        unauthorized(reason="no session")
    try:
        session = lookup.get_json(f"session:{session_id}")
    except ValueError:  # not JSON
        session = None
    match session:
        case {"id": str(id)} if id:
            return User(id, is_admin=session.get("role") == "admin")
    unauthorized(reason="unknown session")


def check(user: User, channel: str) -> None:
    """Rejects the client if the user may not read the channel."""
    if channel == "default":
        return
    if channel.startswith("admin-"):
        if not user.is_admin:
            forbidden("Admin access required", reason=f"{user.id} is not an admin")
    elif channel.startswith("team-"):
        team = channel.removeprefix("team-")
        if not lookup.sismember(f"team:{team}:members", user.id):
            forbidden("Not a team member", reason=f"{user.id} is not in team {team}")
    elif channel != user.id and not channel.startswith(f"{user.id}-"):
        forbidden("You can only access your own channels", reason=f"{channel} is not a channel of {user.id}")
