import sys
import unittest
from datetime import UTC, datetime

from tidegate_policy import (
    Allow,
    InvalidToken,
    Reject,
    Request,
    Response,
    answer,
    context,
    forbidden,
    log,
    lookup,
    settings,
    tokens,
    unauthorized,
)
from tidegate_policy._errors import NoGateway
from tidegate_policy.testing import Decision, TestGateway

PLAIN = [("content-type", "text/plain")]


def decide(call, gateway: TestGateway | None = None, **request) -> Decision:
    """Evaluates a policy that passes the request to ``call``."""
    return (gateway or TestGateway()).decide(lambda request, channels: call(request), **request)


class Answers(unittest.TestCase):
    def test_none_admits_the_client(self) -> None:
        decision = decide(lambda _: None)
        self.assertEqual((decision.allowed, decision.subject, decision.channels), (True, None, None))

    def test_grant_carries_all_its_options(self) -> None:
        def policy(request: Request, channels: list[str]) -> Allow:
            answer.reason("why")
            answer.replay_since(datetime(2026, 1, 1, tzinfo=UTC))
            answer.cache_for(5, "cookie", any_address=True)
            return Allow("alice", channels=channels[:1], expires_at=7, headers={"X-A": "b"})

        decision = TestGateway().decide(policy, "a", "b")
        self.assertEqual(decision.log, [])
        self.assertEqual((decision.subject, decision.channels, decision.expires_at), ("alice", ["a"], 7))
        self.assertEqual(decision.headers, [("x-a", "b")])
        self.assertEqual((decision.reason, decision.replay_since), ("why", 1767225600000))
        self.assertEqual((decision.cache_for, decision.cache_any_address), ((5, ["cookie"]), True))

    def test_rejections(self) -> None:
        for policy, expect in (
            (lambda _: unauthorized(), (401, b"Unauthorized", PLAIN)),
            (lambda _: forbidden("No"), (403, b"No", PLAIN)),
            (lambda _: Response("gone", 410), (410, b"gone", PLAIN)),
            (lambda _: Response("ok"), (200, b"ok", PLAIN)),
            (lambda _: Response(b"\xff", 418), (418, b"\xff", [])),
            (lambda _: Response("nö", 403), (403, "nö".encode(), [("content-type", "text/plain; charset=utf-8")])),
            (
                lambda _: Response("<b>", 403, {"Content-Type": "text/html"}),
                (403, b"<b>", [("content-type", "text/html")]),
            ),
            (lambda _: Response.json({"a": 1}, 403), (403, b'{"a": 1}', [("content-type", "application/json")])),
        ):
            decision = decide(policy)
            self.assertEqual((decision.allowed, decision.status, decision.body, decision.headers), (False, *expect))

    def test_rejection_has_a_reason(self) -> None:
        self.assertEqual(decide(lambda _: forbidden("No", reason="alice is banned")).reason, "alice is banned")

    def test_rejection_may_be_raised(self) -> None:
        def policy(_: Request) -> None:
            raise Reject(429, "Slow down", [("Retry-After", "5")])

        decision = decide(policy)
        self.assertEqual((decision.status, decision.headers[0]), (429, ("retry-after", "5")))

    def test_async_function_is_run_to_its_end(self) -> None:
        async def user() -> str:
            return "alice"

        async def policy(request: Request, channels: list[str]) -> Allow:
            return Allow(await user())

        self.assertEqual(TestGateway().decide(policy).subject, "alice")

    def test_invalid_answer_is_a_500(self) -> None:
        for value in (True, False, "alice", {}, Request, Allow):
            decision = TestGateway().decide(lambda request, channels, value=value: value)
            self.assertEqual((decision.allowed, decision.status), (False, 500), value)

    def test_invalid_field_of_an_answer_is_a_500(self) -> None:
        for policy in (
            lambda _: Allow(7),
            lambda _: Allow("\ud800"),
            lambda _: Allow(channels="default"),
            lambda _: Allow(channels=[1]),
            lambda _: Allow(expires_at=1.5),
            lambda _: Allow(expires_at=datetime(2026, 1, 1)),
            lambda _: Allow(headers={"x-a": 1}),
            lambda _: Allow(expires_at=-1),
            lambda _: Response("x", 99),
            lambda _: Response("x", "403"),
        ):
            decision = decide(policy)
            self.assertEqual((decision.allowed, decision.status), (False, 500))

    def test_other_error_is_a_500_with_details_in_the_log_only(self) -> None:
        def policy(_: Request) -> None:
            raise KeyError("s3cret")

        decision = decide(policy)
        self.assertEqual((decision.status, decision.text), (500, "Internal Server Error"))
        self.assertNotIn("s3cret", decision.reason)
        self.assertTrue(decision.reason.startswith("KeyError at "))
        [(level, text)] = decision.log
        self.assertEqual(level, "error")
        self.assertIn("KeyError: 's3cret'", text)
        self.assertIn("test_decide.py", text)

    def test_exit_of_the_interpreter_is_a_500(self) -> None:
        self.assertEqual(decide(lambda _: sys.exit()).status, 500)


class HostFunctions(unittest.TestCase):
    def test_lookups_of_each_type(self) -> None:
        gateway = TestGateway({"a:text": "x", "a:bytes": b"\xff", "a:json": '{"b":[1]}', "a:hash": {"f": "v"}, "a:set": {"m"}})
        with gateway:
            self.assertEqual(lookup.get("a:text"), "x")
            self.assertIsNone(lookup.get("a:absent"))
            self.assertEqual(lookup.get_bytes("a:bytes"), b"\xff")
            self.assertEqual(lookup.get_json("a:json"), {"b": [1]})
            self.assertIsNone(lookup.get_json("a:absent"))
            self.assertEqual((lookup.hget("a:hash", "f"), lookup.hget("a:hash", "g")), ("v", None))
            self.assertEqual(lookup.hget_bytes("a:hash", "f"), b"v")
            self.assertEqual((lookup.sismember("a:set", "m"), lookup.sismember("a:set", "n")), (True, False))
            self.assertRaises(ValueError, lookup.get, "a:bytes")
            self.assertRaises(ValueError, lookup.get, "a:\ud800")
            self.assertRaises(TypeError, lookup.sismember, "a:set", 7)

    def test_only_strict_json_is_decoded(self) -> None:
        gateway = TestGateway(prefixes=[""])
        for text in ("", "{", "{} x", "NaN", "[-Infinity]", "1e999", '"\\ud800"', "{'a':1}", "[" * 100_000):
            gateway.store["k"] = text
            with gateway, self.assertRaises(ValueError, msg=text):
                lookup.get_json("k")
        for text, value in (('"\\ud83e\\udd80"', "🦀"), (" [1.5, true, null] ", [1.5, True, None])):
            gateway.store["k"] = text
            with gateway:
                self.assertEqual(lookup.get_json("k"), value)

    def test_uncaught_lookup_failure_is_a_503(self) -> None:
        unavailable = TestGateway({"a:b": "c"}, store_unavailable=True)
        denied = TestGateway({"a:b": "c"}, prefixes=[])
        for gateway, reason in ((unavailable, "look-up unavailable"), (denied, "look-up denied")):
            decision = decide(lambda _: lookup.get("a:b"), gateway)
            self.assertEqual((decision.status, decision.text, decision.reason), (503, "Try again", reason))
        wrong_type = decide(lambda _: lookup.sismember("a:b", "c"), TestGateway({"a:b": "c"}))
        self.assertEqual(wrong_type.status, 503)

    def test_uncaught_invalid_token_is_a_401(self) -> None:
        def policy(request: Request, channels: list[str]) -> Allow:
            claims = tokens.verify(request.bearer)
            return Allow(claims.subject, expires_at=claims.expires_at)

        gateway = TestGateway(tokens={"good": {"sub": "alice", "exp": 1767225600}, "old": InvalidToken("expired")})
        decision = gateway.decide(policy, bearer="good")
        self.assertEqual((decision.subject, decision.expires_at), ("alice", 1767225600000))
        for bearer, reason in (("old", "token expired"), ("forged", "token untrusted"), (None, "token missing")):
            decision = gateway.decide(policy, bearer=bearer)
            self.assertEqual((decision.status, decision.text, decision.reason), (401, "Unauthorized", reason))

    def test_context_and_log(self) -> None:
        def policy(_: Request) -> Allow:
            return Allow(f"{context.now()} {context.action()} {context.request_id()}")

        self.assertEqual(decide(policy, TestGateway(now=5)).subject, "5 stream test")
        with self.assertLogs("policy") as logs:
            decide(lambda _: log.warning("careful"))
        self.assertEqual(logs.records[0].message, "careful")

    def test_host_function_without_a_gateway_raises(self) -> None:
        with self.assertRaisesRegex(NoGateway, "tidegate_policy.testing.TestGateway"):
            settings.get("a")
