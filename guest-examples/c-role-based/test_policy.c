/* Tests of the policy on this machine, against a test gateway. */
#include <stdio.h>

#include "tidegate_test.h"

#define UNAUTHORIZED "401 Unauthorized"
#define ADMIN "403 Admin access required"
#define TEAM "403 Not a team member"
#define OWN "403 You can only access your own channels"
#define TRY_AGAIN "503 Try again"

/* alice in team red, bob in team blue, root with the role admin, and a few invalid sessions. */
static void fill(void) {
    tg_test_reset();
    tg_test_set_string("session:alice", "{\"id\":\"alice\",\"role\":\"member\"}");
    tg_test_set_string("session:bob", "{\"id\":\"bob\"}");
    tg_test_set_string("session:root", "{\"role\":\"admin\",\"id\":\"root\",\"since\":3}");
    tg_test_set_string("session:odd-role", "{\"id\":\"bob\",\"role\":[\"admin\"]}");
    tg_test_set_string("session:broken", "{\"id\":\"alice\"");
    tg_test_set_string("session:trailing", "{\"id\":\"alice\"} x");
    tg_test_set_string("session:no-id", "{\"role\":\"admin\"}");
    tg_test_set_string("session:empty-id", "{\"id\":\"\",\"role\":\"admin\"}");
    tg_test_set_string("session:number", "{\"id\":7}");
    tg_test_set_string("session:list", "[\"alice\",\"admin\"]");
    tg_test_set_string("session:nothing", "");
    tg_test_add_set_member("team:red:members", "alice");
    tg_test_add_set_member("team:blue:members", "bob");
}

/* The answer as text, such as "allowed alice" or "403 Not a team member". */
static tg_str answer_text(tg_request request, tg_list channels) {
    tg_answer answer = authorize(&request, channels);
    if (answer.allowed) return tg_join(tg("allowed "), answer.subject);
    tg_test_expect(answer.headers.ptr[0].name, "content-type");
    return tg_join(tg_decimal(answer.status), tg(" "), answer.body);
}

static tg_request with_cookie(const char *cookie) {
    tg_request request = tg_test_request("/api/realtime");
    tg_test_add_header(&request, "cookie", cookie);
    return request;
}

#define check_cookies(cookie, expected) \
    (fill(), tg_test_expect(answer_text(with_cookie(cookie), tg_test_list("default")), expected))
#define check(session, expected, ...) \
    (fill(), tg_test_expect(answer_text(with_cookie("session=" session), tg_test_list(__VA_ARGS__)), expected))

static void every_channel_requires_a_session(void) {
    fill();
    tg_test_expect(answer_text(tg_test_request("/"), tg_test_list("default")), UNAUTHORIZED);
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

static void first_cookie_with_the_name_counts(void) {
    check_cookies("a=b; session=alice; session=bob", "allowed alice");
    check_cookies("flag; =x; ; session = alice ", "allowed alice");
    check_cookies("session=; session=alice", UNAUTHORIZED);
    check_cookies("Session=alice; mysession=alice; session", UNAUTHORIZED);
    check_cookies("session=\xff", UNAUTHORIZED);
}

static void channels_are_allowed_by_user_role_and_team(void) {
    check("alice", "allowed alice", "alice-", "alice-inbox", "alice", "default", "team-red");
    check("alice", OWN, "alice2");
    check("alice", OWN, "alic");
    check("alice", OWN, "default-2");
    check("alice", OWN, "team");
    check("alice", ADMIN, "admin-");
    check("odd-role", ADMIN, "admin-log");
    check("root", "allowed root", "admin-log", "root", "default");
    check("bob", "allowed bob", "team-blue");
    check("root", TEAM, "team-red");
    check("alice", TEAM, "team-");
    check("root", OWN, "alice-inbox");
}

static void first_failing_channel_determines_the_rejection(void) {
    check("alice", ADMIN, "default", "admin-log", "team-blue", "bob");
    check("alice", TEAM, "team-red", "team-blue", "admin-log");
    check("alice", OWN, "bob", "admin-log");
}

static void failed_lookup_is_a_503(void) {
    fill();
    tg_test_fail_lookups("session:", TG_DENIED);
    tg_test_expect(answer_text(with_cookie("session=alice"), tg_test_list("default")), TRY_AGAIN);
    tg_test_expect(tg_test_reason(), "look-up denied");
    tg_test_fail_lookups("team:", TG_UNAVAILABLE);
    tg_test_expect(answer_text(with_cookie("session=alice"), tg_test_list("default", "team-red")), TRY_AGAIN);
    tg_test_expect(tg_test_reason(), "look-up unavailable");
    tg_test_expect(answer_text(with_cookie("session=alice"), tg_test_list("admin-log", "team-red")), ADMIN);
}

static void reason_names_the_user_but_not_the_session(void) {
    check("alice", "allowed alice", "default", "alice");
    tg_test_expect(tg_test_reason(), "alice: 2 channels");
    check("odd-role", TEAM, "team-red");
    tg_test_expect(tg_test_reason(), "bob is not in team red");
    check("odd-role", ADMIN, "admin-log");
    tg_test_expect(tg_test_reason(), "bob is not an admin");
    check("odd-role", OWN, "alice");
    tg_test_expect(tg_test_reason(), "alice is not a channel of bob");
    check("mallory", UNAUTHORIZED, "default");
    tg_test_expect(tg_test_reason(), "unknown session");
    check_cookies("session=", UNAUTHORIZED);
    tg_test_expect(tg_test_reason(), "no session");
}

int main(void) {
    every_channel_requires_a_session();
    first_cookie_with_the_name_counts();
    channels_are_allowed_by_user_role_and_team();
    first_failing_channel_determines_the_rejection();
    failed_lookup_is_a_503();
    reason_names_the_user_but_not_the_session();
    puts("all tests passed");
    return 0;
}
