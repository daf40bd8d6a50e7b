import unittest

from tidegate_policy import Request


def request(path: str = "/", *headers: tuple[str, bytes]) -> Request:
    return Request("GET", "https", "app.example:8443", path, list(headers), "192.0.2.1")


class Cookies(unittest.TestCase):
    def check(self, *headers: bytes, expect: str | None) -> None:
        cookies = request("/", *(("cookie", header) for header in headers)).cookies
        self.assertEqual(cookies.get("session"), expect, headers)

    def test_first_cookie_with_a_name_counts(self) -> None:
        self.check(b"session=alice", expect="alice")
        self.check(b"a=b; session=alice; session=bob", expect="alice")
        self.check(b"a=b", b"theme=dark;session=alice", b"session=bob", expect="alice")
        self.check(b"session=; session=alice", expect="")

    def test_invalid_pairs_are_skipped(self) -> None:
        self.check(expect=None)
        self.check(b"", expect=None)
        self.check(b"flag; =x; ; session = alice ", expect="alice")
        self.check(b"Session=alice; mysession=alice; sessions=alice; session", expect=None)

    def test_values_are_not_decoded(self) -> None:
        self.check(b"session=alice=1", expect="alice=1")
        self.check(b'session="alice"', expect='"alice"')
        self.check(b"session=%61lice", expect="%61lice")
        self.check("session=zoë".encode(), expect="zoë")
        self.check("session=\u00a0alice".encode(), expect="\u00a0alice")
        self.check(b"session=\xff", expect="\ufffd")
        self.check(b"other=\xff; session=alice", expect="alice")


class Headers(unittest.TestCase):
    def test_names_are_case_insensitive(self) -> None:
        headers = request("/", ("x-a", b"1"), ("x-b", b"\xff"), ("x-a", b"2")).headers
        self.assertEqual(headers["X-A"], "1, 2")
        self.assertEqual(headers.get("X-a"), "1, 2")
        self.assertEqual(headers.get_all("x-A"), ["1", "2"])
        self.assertEqual(headers["x-b"], "\ufffd")
        self.assertEqual(headers.raw[1], ("x-b", b"\xff"))
        self.assertIn("X-B", headers)
        self.assertNotIn("x-c", headers)
        self.assertIsNone(headers.get("x-c"))
        self.assertEqual(list(headers), ["x-a", "x-b"])

    def test_repr_has_no_values(self) -> None:
        secret = request("/?token=s3cret", ("cookie", b"session=s3cret"))
        for part in (secret, secret.headers, secret.cookies, secret.query):
            self.assertNotIn("s3cret", f"{part!r} {part}")

    def test_bearer(self) -> None:
        for value, token in (
            (b"Bearer abc", "abc"),
            (b"bearer  abc ", "abc"),
            (b"Bearer", None),
            (b"Bearer ", None),
            (b"Basic abc", None),
            (b"Bearerabc", None),
        ):
            self.assertEqual(request("/", ("authorization", value)).bearer, token, value)
        self.assertIsNone(request().bearer)


class Urls(unittest.TestCase):
    def test_parts(self) -> None:
        parsed = request("/api/realtime/as/alice?channel=a&channel=b")
        self.assertEqual(parsed.url, "https://app.example:8443/api/realtime/as/alice?channel=a&channel=b")
        self.assertEqual(parsed.path, "/api/realtime/as/alice")
        self.assertEqual(request("*").path, "*")

    def test_query_is_parsed_as_browsers_do(self) -> None:
        query = request("/?channel=a+b&channel=%C3%BC&empty=&bare&=x&&bad=%FF%zz&semi=a;b").query
        self.assertEqual(query["channel"], "a b")
        self.assertEqual(query.get_all("channel"), ["a b", "ü"])
        self.assertEqual((query["empty"], query["bare"], query[""]), ("", "", "x"))
        self.assertEqual(query["bad"], "\ufffd%zz")
        self.assertEqual(query["semi"], "a;b")
        self.assertIsNone(query.get("absent"))
        self.assertEqual(query.get_all("absent"), [])
        self.assertEqual(len(request("/").query), 0)
