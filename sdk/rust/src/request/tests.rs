use crate::Request;

#[test]
fn first_cookie_with_the_name_counts() {
    for (headers, expect) in [
        (&[][..], None),
        (&[&b"session=alice"[..]], Some("alice")),
        (&[b"a=b; session=alice; session=bob"], Some("alice")),
        (&[b"a=b", b"theme=dark;session=alice", b"session=bob"], Some("alice")),
        (&[b"flag; =x; ; session = alice "], Some("alice")),
        (&[b"session=a=b"], Some("a=b")),
        (&[b"session=\"quoted\""], Some("\"quoted\"")),
        (&[b"session=; session=alice"], None),
        (&[b"session=\xff; session=alice"], None),
        (&[b"other=\xff; session=alice"], Some("alice")),
        (&[b"Session=alice"], None),
        (&[b"xsession=alice"], None),
    ] {
        let mut request = Request::get("/");
        for header in headers {
            request = request.with_header("cookie", *header);
        }
        assert_eq!(request.cookie("session"), expect, "{headers:?}");
    }
}

#[test]
fn bearer_token_requires_a_single_header() {
    let with = |headers: &[&str]| {
        let request = headers.iter().fold(Request::get("/"), |request, &h| request.with_header("authorization", h));
        request.bearer().map(str::to_owned)
    };
    assert_eq!(with(&["Bearer a.b.c"]).as_deref(), Some("a.b.c"));
    assert_eq!(with(&["bearer  a.b.c "]).as_deref(), Some("a.b.c"));
    for none in [&[][..], &["Basic eA=="], &["Bearer"], &["Bearer "], &["Bearer a", "Bearer b"]] {
        assert_eq!(with(none), None, "{none:?}");
    }
}

#[test]
fn path_query_and_headers_are_parsed() {
    let request = Request::get("/api/realtime/acme?channel=a&channel=b%20c&x=1+2&y").with_header("X-Y", "z");
    assert_eq!((request.method(), request.path()), ("GET", "/api/realtime/acme"));
    assert_eq!(request.queries("channel").collect::<Vec<_>>(), ["a", "b c"]);
    assert_eq!(request.query("x").as_deref(), Some("1 2"));
    assert_eq!(request.query("y").as_deref(), Some(""));
    assert_eq!(request.query("z"), None);
    assert_eq!((request.header("x-y"), request.header("X-y"), request.header("x")), (Some("z"), Some("z"), None));
    assert_eq!(Request::get("/a").path(), "/a");
}
