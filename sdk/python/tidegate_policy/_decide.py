"""Evaluation of a policy's function, and conversion of its result or exception into an answer."""

from __future__ import annotations

import traceback
from collections.abc import Callable
from typing import Any

from . import _host
from ._errors import Denied, InvalidToken, Unavailable
from ._request import Request
from ._responses import Allow, Reject, Response

Answer = Allow | Response
Authorize = Callable[[Request, list[str]], Any]

#: A longer log record loses its middle: the gateway takes 8 KiB per decision and drops the rest.
MAX_LOG_CHARACTERS = 4000


def decide(authorize: Authorize, request: Request, channels: list[str], root: str = "") -> Answer:
    """Evaluates the policy. Any exception rejects the client; ``root`` is removed from the paths in the log."""
    host = _host.current()
    try:
        answer = authorize(request, channels)
        if hasattr(answer, "__await__"):
            answer = _finish(answer)
        return _checked(answer)
    except Reject as reject:
        if reject.reason is not None:
            host.reason(reject.reason)
        return reject.response
    except (Denied, Unavailable) as error:
        host.reason(error.reason)
        return Response("Try again", 503)
    except InvalidToken as error:
        host.reason(f"token {error}")
        return Response("Unauthorized", 401)
    except BaseException as error:  # SystemExit too: a policy has no process to exit
        report(host, error, root)
        return Response("Internal Server Error", 500)


def report(host: _host.Host, error: BaseException, root: str) -> None:
    """Reports an error to the operator. The log has the whole error; the reason omits its text, which may contain secrets."""
    trace = error.__traceback__
    # The frames between this function and the policy are left out.
    while trace and trace.tb_next and trace.tb_frame.f_code.co_filename == __file__:
        trace = trace.tb_next
    text = "".join(traceback.format_exception(type(error), error, trace)).rstrip()
    frames = traceback.extract_tb(trace)
    location = f" at {frames[-1].filename}:{frames[-1].lineno}" if frames else ""
    if root:
        text, location = text.replace(root, ""), location.replace(root, "")
    if len(text) > MAX_LOG_CHARACTERS:
        text = f"{text[: MAX_LOG_CHARACTERS // 4]}\n[…]\n{text[-MAX_LOG_CHARACTERS * 3 // 4 :]}"
    host.log("error", text)
    host.reason(f"{type(error).__name__}{location}")


def _finish(awaitable: Any) -> Any:
    """Runs an ``async def`` to its end. No host function suspends, so the coroutine finishes in one step."""
    steps = awaitable.__await__()
    try:
        next(steps)
    except StopIteration as end:
        return end.value
    raise RuntimeError(
        "the policy awaits something that never completes: there is no event loop in a policy, call it without await"
    )


def _checked(answer: Any) -> Answer:
    if answer is None:
        return Allow()
    if isinstance(answer, Allow):
        if answer.subject is not None:
            _host.text(answer.subject, "a subject")
        for channel in answer.channels or ():
            _host.text(channel, "a channel")
        if answer.expires_at is not None:
            _host.count(answer.expires_at, 64, "expires_at")
    elif not isinstance(answer, Response):
        raise TypeError(
            f"authorize returned {type(answer).__name__}: return None or an Allow to admit the client, or a Response to reject it"
        )
    for name, value in answer.headers:
        _host.text(name, "a header's name")
        _host.text(value, "a header's value")
    return answer
