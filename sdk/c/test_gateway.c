/* A gateway for tests: the host functions of bindings/policy.c, implemented with tables. It needs a C library. */
#include "tidegate_test.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MAX_ENTRIES 256
#define NEW_YEAR_2026 UINT64_C(1767225600000)

typedef enum { STRING, HASH, MEMBER, SETTING, TOKEN } entry_kind;

typedef struct {
    entry_kind kind;
    const char *key, *field, *value;
} entry;

static struct {
    entry entries[MAX_ENTRIES];
    size_t count;
    const char *failing;
    tg_lookup failure;
    uint64_t now;
    tg_str reason;
    uint32_t cached_for;
    unsigned lookups;
} gateway = {.now = NEW_YEAR_2026};

void tg_test_reset(void) {
    memset(&gateway, 0, sizeof gateway);
    gateway.now = NEW_YEAR_2026;
}

static void add(entry_kind kind, const char *key, const char *field, const char *value) {
    if (gateway.count == MAX_ENTRIES) {
        fprintf(stderr, "the test gateway has at most %d entries\n", MAX_ENTRIES);
        exit(1);
    }
    gateway.entries[gateway.count++] = (entry){kind, key, field, value};
}

void tg_test_set_string(const char *key, const char *value) {
    add(STRING, key, NULL, value);
}

void tg_test_set_hash_field(const char *key, const char *field, const char *value) {
    add(HASH, key, field, value);
}

void tg_test_add_set_member(const char *key, const char *member) {
    add(MEMBER, key, member, "");
}

void tg_test_fail_lookups(const char *prefix, tg_lookup failure) {
    gateway.failing = prefix;
    gateway.failure = failure;
}

void tg_test_set_setting(const char *name, const char *value) {
    add(SETTING, name, NULL, value);
}

void tg_test_add_token(const char *token, const char *claims) {
    add(TOKEN, token, NULL, claims);
}

void tg_test_set_time(uint64_t now) {
    gateway.now = now;
}

/* The policy may modify the values that it gets, so they are copies. */
static tg_str copy(const char *text) {
    tg_str original = tg(text);
    return tg_join_all(&original, 1);
}

static bool find(entry_kind kind, tg_str key, const tg_str *field, tg_str *value) {
    for (size_t i = 0; i < gateway.count; i++) {
        const entry *entry = &gateway.entries[i];
        if (entry->kind != kind || !tg_equal(tg(entry->key), key)) continue;
        if (field != NULL && !tg_equal(tg(entry->field), *field)) continue;
        *value = copy(entry->value);
        return true;
    }
    return false;
}

static bool fails(tg_str key, tidegate_policy_lookup_error_t *error) {
    gateway.lookups++;
    if (gateway.failing == NULL || !tg_starts_with(key, tg(gateway.failing))) return false;
    error->tag = gateway.failure == TG_DENIED ? TIDEGATE_POLICY_LOOKUP_ERROR_DENIED
                                           : TIDEGATE_POLICY_LOOKUP_ERROR_UNAVAILABLE;
    error->val.unavailable = tg("the store does not answer");
    return true;
}

static bool look_up(entry_kind kind, tg_str key, const tg_str *field, policy_option_list_u8_t *found,
                    tidegate_policy_lookup_error_t *error) {
    tg_str value = {0};
    if (fails(key, error)) return false;
    found->is_some = find(kind, key, field, &value);
    found->val = (policy_list_u8_t){value.ptr, value.len};
    return true;
}

bool tidegate_policy_lookup_get(policy_string_t *key, policy_option_list_u8_t *found,
                                tidegate_policy_lookup_error_t *error) {
    return look_up(STRING, *key, NULL, found, error);
}

bool tidegate_policy_lookup_hash_get(policy_string_t *key, policy_string_t *field, policy_option_list_u8_t *found,
                                     tidegate_policy_lookup_error_t *error) {
    return look_up(HASH, *key, field, found, error);
}

bool tidegate_policy_lookup_set_contains(policy_string_t *key, policy_string_t *member, bool *contains,
                                         tidegate_policy_lookup_error_t *error) {
    tg_str value;
    if (fails(*key, error)) return false;
    *contains = find(MEMBER, *key, member, &value);
    return true;
}

bool tidegate_policy_settings_get(policy_string_t *name, policy_string_t *value) {
    return find(SETTING, *name, NULL, value);
}

bool tidegate_policy_tokens_verify(policy_string_t *token, policy_string_t *claims,
                                   tidegate_policy_tokens_error_t *error) {
    error->tag = TIDEGATE_POLICY_TOKENS_ERROR_UNTRUSTED;
    return find(TOKEN, *token, NULL, claims);
}

bool tidegate_policy_tokens_verify_with(policy_string_t *profile, policy_string_t *token, policy_string_t *claims,
                                        tidegate_policy_tokens_error_t *error) {
    (void)profile;
    return tidegate_policy_tokens_verify(token, claims, error);
}

uint64_t tidegate_policy_context_now(void) {
    return gateway.now;
}

void tidegate_policy_context_request_id(policy_string_t *id) {
    *id = copy("a-test");
}

void tidegate_policy_context_action(policy_string_t *action) {
    *action = copy("stream");
}

void tidegate_policy_context_log(tidegate_policy_context_level_t level, policy_string_t *message) {
    static const char *const names[] = {"debug", "info", "warn", "error"};
    printf("%s: %.*s\n", names[level], (int)message->len, (const char *)message->ptr);
}

void tidegate_policy_answer_reason(policy_string_t *text) {
    gateway.reason = tg_join_all(text, 1);
}

void tidegate_policy_answer_replay_since(uint64_t time) {
    (void)time;
}

void tidegate_policy_answer_cache_for(uint32_t seconds, policy_list_string_t *vary) {
    (void)vary;
    gateway.cached_for = seconds;
}

void tidegate_policy_answer_cache_any_address(void) {}

tg_request tg_test_request(const char *path) {
    return (tg_request){
        .method = tg("GET"),
        .scheme = tg("https"),
        .authority = tg("app.example"),
        .path_with_query = tg(path),
        .client_address = tg("192.0.2.1"),
    };
}

void tg_test_add_header(tg_request *request, const char *name, const char *value) {
    size_t count = request->headers.len + 1;
    tidegate_policy_types_header_t *all = realloc(request->headers.ptr, count * sizeof *all);
    if (all == NULL) abort();
    all[count - 1] = (tidegate_policy_types_header_t){tg(name), {(uint8_t *)value, strlen(value)}};
    request->headers.ptr = all;
    request->headers.len = count;
}

tg_list tg_test_list_of(const char *const *texts, size_t count) {
    tg_list list = {calloc(count, sizeof *list.ptr), count};
    if (list.ptr == NULL) abort();
    for (size_t i = 0; i < count; i++) list.ptr[i] = tg(texts[i]);
    return list;
}

tg_str tg_test_reason(void) {
    return gateway.reason;
}

uint32_t tg_test_cache_seconds(void) {
    return gateway.cached_for;
}

unsigned tg_test_lookup_count(void) {
    return gateway.lookups;
}

void tg_test_expect_at(const char *file, int line, tg_str text, const char *expected) {
    if (tg_equal(text, tg(expected))) return;
    fprintf(stderr, "%s:%d: expected \"%s\", got \"%.*s\"\n", file, line, expected, (int)text.len,
            (const char *)text.ptr);
    exit(1);
}
