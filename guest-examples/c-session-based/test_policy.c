/* The policy's decisions, made on this machine, with a fake store. */
#include <stdio.h>

#include "tidegate_fake.h"

#define UNAUTHORIZED "401 Unauthorized"
#define TRY_AGAIN "503 Try again"

/* alice, bob, and a few sessions that are none. */
static void fill(void) {
    tg_fake_reset();
    tg_fake_string("session:alice", "{\"id\":\"alice\",\"role\":\"member\"}");
    tg_fake_string("session:bob", "{\"id\":\"bob\"}");
    tg_fake_string("session:broken", "{\"id\":\"alice\"");
    tg_fake_string("session:trailing", "{\"id\":\"alice\"} x");
    tg_fake_string("session:no-id", "{\"role\":\"admin\"}");
    tg_fake_string("session:empty-id", "{\"id\":\"\",\"role\":\"admin\"}");
    tg_fake_string("session:number", "{\"id\":7}");
    tg_fake_string("session:list", "[\"alice\",\"admin\"]");
    tg_fake_string("session:nothing", "");
}

/* The answer in short: "in: alice" or "401 Unauthorized". */
static tg_str ask(tg_request request, tg_list channels) {
    tg_answer answer = authorize(&request, channels);
    if (answer.allowed) return tg_join(tg("in: "), answer.subject);
    tg_fake_expect(answer.headers.ptr[0].name, "content-type");
    return tg_join(tg_decimal(answer.status), tg(" "), answer.body);
}

static tg_request with_cookie(const char *cookie) {
    tg_request request = tg_fake_request("/api/realtime");
    tg_fake_add_header(&request, "cookie", cookie);
    return request;
}

#define check_cookies(cookie, expected) \
    (fill(), tg_fake_expect(ask(with_cookie(cookie), tg_fake_list("default")), expected))
#define check(session, expected, ...) \
    (fill(), tg_fake_expect(ask(with_cookie("session=" session), tg_fake_list(__VA_ARGS__)), expected))

static void a_session_is_needed_for_every_channel(void) {
    fill();
    tg_fake_expect(ask(tg_fake_request("/"), tg_fake_list("default")), UNAUTHORIZED);
    check_cookies("", UNAUTHORIZED);
    check("mallory", UNAUTHORIZED, "default");
    check("mallory", UNAUTHORIZED, "admin-x");
    check("broken", UNAUTHORIZED, "default");
    check("trailing", UNAUTHORIZED, "default");
    check("no-id", UNAUTHORIZED, "default");
    check("empty-id", UNAUTHORIZED, "default");
    check("number", UNAUTHORIZED, "default");
    check("list", UNAUTHORIZED, "default");
    check("nothing", UNAUTHORIZED, "default");
}

static void the_first_cookie_of_the_name_wins(void) {
    check_cookies("a=b; session=alice; session=bob", "in: alice");
    check_cookies("flag; =x; ; session = alice ", "in: alice");
    check_cookies("session=; session=alice", UNAUTHORIZED);
    check_cookies("Session=alice; mysession=alice; session", UNAUTHORIZED);
    check_cookies("session=\xff", UNAUTHORIZED);
}

static void a_session_is_enough(void) {
    check("alice", "in: alice", "default");
    check("bob", "in: bob", "admin-log", "team-red", "alice");
}

static void a_failed_look_up_is_no_verdict(void) {
    fill();
    tg_fake_failure("session:", TG_DENIED);
    tg_fake_expect(ask(with_cookie("session=alice"), tg_fake_list("default")), TRY_AGAIN);
    tg_fake_expect(tg_fake_reason(), "look-up denied");
    tg_fake_failure("session:", TG_UNAVAILABLE);
    tg_fake_expect(ask(with_cookie("session=alice"), tg_fake_list("default")), TRY_AGAIN);
    tg_fake_expect(tg_fake_reason(), "look-up unavailable");
}

static void reasons_name_the_user_and_never_the_session(void) {
    check("alice", "in: alice", "default", "alice");
    tg_fake_expect(tg_fake_reason(), "alice: 2 channels");
    check("mallory", UNAUTHORIZED, "default");
    tg_fake_expect(tg_fake_reason(), "unknown session");
    check_cookies("session=", UNAUTHORIZED);
    tg_fake_expect(tg_fake_reason(), "no session");
}

int main(void) {
    a_session_is_needed_for_every_channel();
    the_first_cookie_of_the_name_wins();
    a_session_is_enough();
    a_failed_look_up_is_no_verdict();
    reasons_name_the_user_and_never_the_session();
    puts("all decisions are right");
    return 0;
}
