/* A gateway for tests of a policy. A test is an ordinary program for the author's own machine: it fills the gateway's store, makes
 * requests, calls `authorize`, and checks the answer. */
#ifndef TIDEGATE_TEST_H
#define TIDEGATE_TEST_H

#include "tidegate.h"

/* Resets the gateway: an empty store, no settings, no tokens, and 2026-01-01 as the time. */
void tg_test_reset(void);

/* Add values to the store. */
void tg_test_set_string(const char *key, const char *value);
void tg_test_set_hash_field(const char *key, const char *field, const char *value);
void tg_test_add_set_member(const char *key, const char *member);
/* Makes look-ups of keys with the prefix fail: TG_DENIED or TG_UNAVAILABLE. */
void tg_test_fail_lookups(const char *prefix, tg_lookup failure);

void tg_test_set_setting(const char *name, const char *value);
/* Adds a token that is valid for all profiles. Any other token is TG_TOKEN_UNTRUSTED. */
void tg_test_add_token(const char *token, const char *claims);
void tg_test_set_time(uint64_t now);

/* A GET request for the path; `tg_test_add_header` adds headers. */
tg_request tg_test_request(const char *path);
void tg_test_add_header(tg_request *request, const char *name, const char *value);
/* A list of texts: tg_test_list("default", "team-red"). */
#define tg_test_list(...) \
    tg_test_list_of((const char *[]){__VA_ARGS__}, sizeof((const char *[]){__VA_ARGS__}) / sizeof(const char *))
tg_list tg_test_list_of(const char *const *texts, size_t count);

/* The options of the last answer since the last reset. */
tg_str tg_test_reason(void);
uint32_t tg_test_cache_seconds(void);
/* The number of look-ups since the last reset. */
unsigned tg_test_lookup_count(void);

/* Asserts that a text is the expected one; otherwise prints it and exits. */
#define tg_test_expect(text, expected) tg_test_expect_at(__FILE__, __LINE__, text, expected)
void tg_test_expect_at(const char *file, int line, tg_str text, const char *expected);

#endif
