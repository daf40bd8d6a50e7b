/* A gateway for the tests of a policy, which are an ordinary program for the author's own machine: it fills a store, makes
 * requests, calls `authorize`, and looks at the answer. */
#ifndef TIDEGATE_FAKE_H
#define TIDEGATE_FAKE_H

#include "tidegate.h"

/* Begins anew: an empty store, no settings, no tokens, 2026-01-01 as the time. */
void tg_fake_reset(void);

/* What the store holds. */
void tg_fake_string(const char *key, const char *value);
void tg_fake_hash(const char *key, const char *field, const char *value);
void tg_fake_member(const char *key, const char *member);
/* Look-ups of keys that begin so fail: TG_DENIED or TG_UNAVAILABLE. */
void tg_fake_failure(const char *prefix, tg_lookup failure);

void tg_fake_setting(const char *name, const char *value);
/* A token that holds, whatever the profile; any other is TG_TOKEN_UNTRUSTED. */
void tg_fake_token(const char *token, const char *claims);
void tg_fake_time(uint64_t now);

/* A GET of that path; headers as `tg_fake_add_header` adds them. */
tg_request tg_fake_request(const char *path);
void tg_fake_add_header(tg_request *request, const char *name, const char *value);
/* A list of texts: tg_fake_list("default", "team-red"). */
#define tg_fake_list(...) \
    tg_fake_list_of((const char *[]){__VA_ARGS__}, sizeof((const char *[]){__VA_ARGS__}) / sizeof(const char *))
tg_list tg_fake_list_of(const char *const *texts, size_t count);

/* What the policy said beside its answer since the last reset. */
tg_str tg_fake_reason(void);
uint32_t tg_fake_cached_for(void);
/* How often it looked something up. */
unsigned tg_fake_lookups(void);

/* Asserts that a text is this one; says which one it is and ends the test if not. */
#define tg_fake_expect(text, expected) tg_fake_expect_at(__FILE__, __LINE__, text, expected)
void tg_fake_expect_at(const char *file, int line, tg_str text, const char *expected);

#endif
