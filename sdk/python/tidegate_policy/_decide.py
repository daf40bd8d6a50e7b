"""From what a policy's function does to what is answered."""

from __future__ import annotations

import traceback
from collections.abc import Callable
from typing import Any

from . import _world
from ._errors import Denied, InvalidToken, Unavailable
from ._request import Request
from ._responses import Allow, Reject, Response

Answer = Allow | Response
Authorize = Callable[[Request, list[str]], Any]

#: A record of the log beyond this is cut in its middle: the gateway takes 8 KiB a decision, and drops what does not fit.
LOG_CHARACTERS = 4000


def decide(authorize: Authorize, request: Request, channels: list[str], root: str = "") -> Answer:
    """Asks the policy. Whatever it raises keeps the client out; ``root`` is cut from the paths in the log."""
    world = _world.current()
    try:
        answer = authorize(request, channels)
        if hasattr(answer, "__await__"):
            answer = _finish(answer)
        return _checked(answer)
    except Reject as reject:
        if reject.reason is not None:
            world.reason(reject.reason)
        return reject.response
    except (Denied, Unavailable) as error:
        world.reason(error.reason)
        return Response("Try again", 503)
    except InvalidToken as error:
        world.reason(f"token {error}")
        return Response("Unauthorized", 401)
    except BaseException as error:  # SystemExit too: a policy has nothing to exit from
        report(world, error, root)
        return Response("Internal Server Error", 500)


def report(world: _world.World, error: BaseException, root: str) -> None:
    """Tells the operator. The reason has no text of the error, for that may be anything; the log has all of it."""
    trace = error.__traceback__
    # The frames between here and the policy say nothing.
    while trace and trace.tb_next and trace.tb_frame.f_code.co_filename == __file__:
        trace = trace.tb_next
    text = "".join(traceback.format_exception(type(error), error, trace)).rstrip()
    frames = traceback.extract_tb(trace)
    place = f" at {frames[-1].filename}:{frames[-1].lineno}" if frames else ""
    if root:
        text, place = text.replace(root, ""), place.replace(root, "")
    if len(text) > LOG_CHARACTERS:
        text = f"{text[: LOG_CHARACTERS // 4]}\n[…]\n{text[-LOG_CHARACTERS * 3 // 4 :]}"
    world.log("error", text)
    world.reason(f"{type(error).__name__}{place}")


def _finish(awaitable: Any) -> Any:
    """The result of an ``async def``. Nothing here waits for anything, so it runs through at once."""
    steps = awaitable.__await__()
    try:
        next(steps)
    except StopIteration as end:
        return end.value
    raise RuntimeError(
        "the policy awaits something that does not come: there is no event loop in a policy, call it without await"
    )


def _checked(answer: Any) -> Answer:
    if answer is None:
        return Allow()
    if isinstance(answer, Allow):
        if answer.subject is not None:
            _world.text(answer.subject, "a subject")
        for channel in answer.channels or ():
            _world.text(channel, "a channel")
        if answer.expires_at is not None:
            _world.count(answer.expires_at, 64, "expires_at")
    elif not isinstance(answer, Response):
        raise TypeError(
            f"authorize returned {type(answer).__name__}: None or an Allow lets the client in, a Response keeps it out"
        )
    for name, value in answer.headers:
        _world.text(name, "a header's name")
        _world.text(value, "a header's value")
    return answer
