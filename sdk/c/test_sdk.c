/* Tests of the parts of the SDK that the tests of the example policies do not cover; `make test`. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tidegate_test.h"

tg_answer authorize(const tg_request *request, tg_list channels) {
    (void)request;
    tg_answer answer = tg_allow(tg("alice"));
    answer.channels = (tg_list){channels.ptr, 1};
    answer.expires_at = 5;
    tg_header(&answer, "set-cookie", tg("a=1"));
    tg_header(&answer, "set-cookie", tg("b=2"));
    tg_header(&answer, "x-mode", tg("old"));
    tg_header(&answer, "x-mode", tg("new"));
    return channels.len > 1 ? answer : tg_reject(418, "no");
}

static void check(bool condition, const char *expectation) {
    if (condition) return;
    fprintf(stderr, "failed: %s\n", expectation);
    exit(1);
}

/* Copies text to memory of exactly its size, so that the address sanitizer detects reads past its end. */
static tg_str exact_copy(const char *text, size_t len) {
    uint8_t *memory = malloc(len);
    if (len > 0) memcpy(memory, text, len);
    return (tg_str){memory, len};
}

static tg_json parse(const char *text) {
    return tg_json_parse(exact_copy(text, strlen(text)));
}

static void json_is_parsed_by_the_standard(void) {
    static const char *const valid[] = {
        "{}", "[]", " [1 , -0.5e+3,\t\"\"] ", "null", "true", "\"\\u00e9\\n\\ud83d\\ude00\"", "{\"a\":{\"b\":[{}]}}", "0", "-0",
        "\"\x7f \xf4\x8f\xbf\xbf\"",
    };
    static const char *const invalid[] = {
        "", " ", "{", "[1,]", "{\"a\":1,}", "{\"a\"}", "{a:1}", "01", "1.", ".5", "-", "+1", "1e", "nul", "nullx", "[1 2]", "\"",
        "\"\\x\"", "\"\\u12g4\"", "\"\\ud800\"", "\"\\ud800\\u0041\"", "\"\\udc00\"", "\"\n\"", "\"\\", "\"\\u1", "1 1", "[}", "{]",
        "\"\xff\"", "\"\xc0\xaf\"", "\"\xed\xa0\x80\"", "\xef\xbb\xbf{}", "'a'", "NaN", "\"\\ud83d\\u",
    };
    for (size_t i = 0; i < sizeof valid / sizeof *valid; i++) check(parse(valid[i]).kind != TG_JSON_NONE, valid[i]);
    for (size_t i = 0; i < sizeof invalid / sizeof *invalid; i++) check(parse(invalid[i]).kind == TG_JSON_NONE, invalid[i]);

    char deep[400];
    memset(deep, '[', 200);
    memset(deep + 200, ']', 200);
    check(tg_json_parse(exact_copy(deep, 400)).kind == TG_JSON_NONE, "nesting is limited");
    check(tg_json_parse(exact_copy(deep + 140, 120)).kind == TG_JSON_ARRAY, "a depth of 60 is allowed");
}

/* A truncated document is an error, and the parser does not read past its end. */
static void truncated_json_is_an_error(void) {
    static const char whole[] = "{\"id\":\"a\\u00e9\\ud83d\\ude00\",\"n\":[1,-2.5e3,true,false,null]}";
    for (size_t len = 0; len < sizeof whole - 1; len++) {
        check(tg_json_parse(exact_copy(whole, len)).kind == TG_JSON_NONE, "a truncated document");
    }
}

static void json_members_and_items_are_found(void) {
    tg_json object = parse("{\"a\":1,\"b\":{\"c\":\"x\\\"\\u00e9\\ud83d\\ude00\"},\"\\u0061\":-9223372036854775808,\"l\":[true,\"y\"]}");
    tg_str text;
    int64_t number;
    check(tg_json_integer(tg_json_member(object, "a"), &number) && number == INT64_MIN, "the last member with a name counts");
    check(tg_json_string(tg_json_member(tg_json_member(object, "b"), "c"), &text), "a member of a member");
    tg_test_expect(text, "x\"\xc3\xa9\xf0\x9f\x98\x80");
    check(tg_json_true(tg_json_item(tg_json_member(object, "l"), 0)), "an item");
    check(tg_json_string(tg_json_item(tg_json_member(object, "l"), 1), &text), "the next item");
    check(tg_json_item(tg_json_member(object, "l"), 2).kind == TG_JSON_NONE, "no further item");
    check(tg_json_member(object, "z").kind == TG_JSON_NONE, "no such member");
    check(tg_json_member(parse("[1]"), "a").kind == TG_JSON_NONE, "not an object");
    check(!tg_json_string(tg_json_member(object, "b"), &text), "not a string");
    check(!tg_json_integer(parse("9223372036854775808"), &number), "too large a number");
    check(!tg_json_integer(parse("1.0"), &number), "not an integer");
    check(tg_json_integer(parse("-0"), &number) && number == 0, "minus zero");
}

static void request_is_parsed(void) {
    tg_str value;
    tg_request request = tg_test_request("/api/realtime?channel=a%2Db&q=x+y%zz&empty=&flag&channel=second");
    tg_test_add_header(&request, "authorization", "bEARER  abc ");
    tg_test_add_header(&request, "cookie", "a=1");
    tg_test_add_header(&request, "cookie", "b = 2=3 ;c=");
    check(tg_query(&request, "channel", &value), "a parameter");
    tg_test_expect(value, "a-b");
    check(tg_query(&request, "q", &value), "a parameter with escapes");
    tg_test_expect(value, "x y%zz");
    check(tg_query(&request, "flag", &value) && value.len == 0, "a parameter without a value");
    check(!tg_query(&request, "none", &value), "no such parameter");
    check(tg_bearer(&request, &value), "a bearer token");
    tg_test_expect(value, "abc");
    check(tg_cookie(&request, "b", &value), "a cookie of the second header");
    tg_test_expect(value, "2=3");
    check(tg_cookie(&request, "c", &value) && value.len == 0, "an empty cookie");
    check(!tg_cookie(&request, "d", &value), "no such cookie");
}

static void host_functions_are_called(void) {
    tg_str value;
    tg_test_reset();
    tg_test_set_hash_field("user:1", "name", "Ada");
    tg_test_set_setting("audience", "app");
    tg_test_add_token("good", "{\"sub\":\"ada\"}");
    check(tg_hash_get(tg("user:1"), tg("name"), &value) == TG_FOUND, "a field");
    tg_test_expect(value, "Ada");
    check(tg_hash_get(tg("user:1"), tg("age"), &value) == TG_NOT_FOUND, "no such field");
    check(tg_get(tg("\xff"), &value) == TG_NOT_FOUND && tg_test_lookup_count() == 2, "a key that is not UTF-8 is not looked up");
    check(tg_setting("audience", &value) && !tg_setting("other", &value), "settings");
    check(tg_verify(tg("good"), &value) == TG_TOKEN_VALID, "a valid token");
    check(tg_verify_with("app", tg("bad"), &value) == TG_TOKEN_UNTRUSTED, "an untrusted token");
    tg_reason(tg("\xff"));
    tg_test_expect(tg_test_reason(), "(text that is not UTF-8)");
    tg_test_expect(tg_decimal(UINT64_MAX), "18446744073709551615");
    tg_test_expect(tg_decimal(0), "0");
}

static void answers_reach_the_gateway(void) {
    tg_request request = tg_test_request("/");
    tg_list two = tg_test_list("a", "b"), one = tg_test_list("a");
    exports_tidegate_policy_authorizer_grant_t grant;
    exports_tidegate_policy_authorizer_rejection_t rejection;
    check(exports_tidegate_policy_authorizer_authorize(&request, &two, &grant, &rejection), "a grant");
    tg_test_expect(grant.subject.val, "alice");
    check(grant.channels.is_some && grant.channels.val.len == 1 && grant.expires_at.val == 5, "channels and expiry of the grant");
    check(grant.headers.len == 3 && grant.headers.ptr[2].value.ptr[0] == 'n', "set-cookie is repeated, other headers are replaced");
    check(!exports_tidegate_policy_authorizer_authorize(&request, &one, &grant, &rejection), "a rejection");
    check(rejection.status == 418 && rejection.headers.len == 1, "status and headers of the rejection");
}

int main(void) {
    json_is_parsed_by_the_standard();
    truncated_json_is_an_error();
    json_members_and_items_are_found();
    request_is_parsed();
    host_functions_are_called();
    answers_reach_the_gateway();
    puts("all tests passed");
    return 0;
}
