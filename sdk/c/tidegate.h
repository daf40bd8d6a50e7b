/* The SDK for Tidegate policies in C. README.md in this folder describes the build.
 *
 * Nothing has to be freed: all memory lives as long as the decision. */
#ifndef TIDEGATE_H
#define TIDEGATE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "bindings/policy.h"

/* Text or bytes: a pointer and a length, without a terminating zero. */
typedef policy_string_t tg_str;
/* A list of texts. */
typedef policy_list_string_t tg_list;
/* The client's request: method, scheme, authority, path_with_query, headers, client_address. */
typedef tidegate_policy_types_request_t tg_request;

/* ---- the policy ------------------------------------------------------------------------------------------------- */

/* The policy's answer, made by `tg_allow` or `tg_reject`. */
typedef struct {
    bool allowed;
    /* Only for a rejection. */
    uint16_t status;
    tg_str body;
    /* Only for a grant: the user (empty: no subject), the granted channels (empty: all requested channels), and the end of the
     * grant, in ms since 1970 (0: no end). */
    tg_str subject;
    tg_list channels;
    uint64_t expires_at;
    /* Response headers; see `tg_header`. */
    tidegate_policy_types_list_header_t headers;
} tg_answer;

/* The function that a policy defines: it decides whether the client may read these channels. The list is not empty, and no channel is
 * repeated. */
tg_answer authorize(const tg_request *request, tg_list channels);

/* Admits the client. */
tg_answer tg_allow(tg_str subject);
/* Rejects the client, with a text/plain body. */
tg_answer tg_reject(uint16_t status, const char *text);
/* Sets a header of the answer: a grant may have `set-cookie` and `x-…`, a rejection any. `set-cookie` may be repeated. */
void tg_header(tg_answer *answer, const char *name, tg_str value);

/* The reason for the decision, for the decision log. It is never sent to the client. */
void tg_reason(tg_str text);
/* Events older than this time (ms since 1970) are not replayed to the client. */
void tg_replay_since(uint64_t time);
/* The gateway may reuse the answer for the given time, for requests with the same URL, client address and values of the headers in
 * `vary`. Name the headers that carry credentials there. */
void tg_cache_for(uint32_t seconds, tg_list vary);
/* The cached answer is valid for clients of any address. */
void tg_cache_any_address(void);

/* ---- the request: each function returns whether the value exists, and sets `value` if so ------------------------- */

/* The first header with this name; the name in lower case. */
bool tg_request_header(const tg_request *request, const char *name, tg_str *value);
/* The first cookie with this name, undecoded. */
bool tg_cookie(const tg_request *request, const char *name, tg_str *value);
/* The token of `authorization: Bearer <token>`. */
bool tg_bearer(const tg_request *request, tg_str *value);
/* The first query parameter with this name, decoded. */
bool tg_query(const tg_request *request, const char *name, tg_str *value);

/* ---- the gateway ------------------------------------------------------------------------------------------------- */

typedef enum {
    TG_FOUND,
    TG_NOT_FOUND,
    /* The operator did not allow the key. */
    TG_DENIED,
    /* The store did not answer in time, or answered with an error. */
    TG_UNAVAILABLE,
} tg_lookup;

tg_lookup tg_get(tg_str key, tg_str *value);
tg_lookup tg_hash_get(tg_str key, tg_str field, tg_str *value);
/* Whether the set at `key` contains `member`: TG_FOUND or TG_NOT_FOUND, or the error of the look-up. */
tg_lookup tg_set_contains(tg_str key, tg_str member);

typedef enum {
    TG_TOKEN_VALID,
    TG_TOKEN_MALFORMED,
    /* The signature, algorithm or key is not valid. */
    TG_TOKEN_UNTRUSTED,
    TG_TOKEN_EXPIRED,
    /* Issuer, audience or not-before does not match. */
    TG_TOKEN_CLAIMS,
    /* The gateway has no key to verify the token. */
    TG_TOKEN_UNAVAILABLE,
} tg_token;

/* Verifies a JSON Web Token with the profile of its issuer; `claims` is JSON. */
tg_token tg_verify(tg_str token, tg_str *claims);
/* Verifies a JSON Web Token with one profile of the operator. */
tg_token tg_verify_with(const char *profile, tg_str token, tg_str *claims);

/* A setting of the operator. */
bool tg_setting(const char *name, tg_str *value);
/* The gateway's clock, in ms since 1970. */
uint64_t tg_now(void);
/* The id of this request, as in all log lines about it. */
tg_str tg_request_id(void);
/* The requested action: `stream` or `history`. */
tg_str tg_action(void);

typedef enum { TG_DEBUG, TG_INFO, TG_WARN, TG_ERROR } tg_level;

/* Writes to the gateway's log. */
void tg_log(tg_level level, tg_str message);

/* ---- text -------------------------------------------------------------------------------------------------------- */

/* Makes a `tg_str` of zero-terminated text, such as a literal. */
tg_str tg(const char *text);
bool tg_equal(tg_str a, tg_str b);
bool tg_starts_with(tg_str text, tg_str beginning);
/* The rest of `text` from byte `start`. */
tg_str tg_from(tg_str text, size_t start);
/* Removes white space at both ends. */
tg_str tg_trim(tg_str text);
/* Formats a number in decimal. */
tg_str tg_decimal(uint64_t number);
/* Concatenates texts: tg_join(tg("session:"), id). */
#define tg_join(...) \
    tg_join_all((tg_str[]){__VA_ARGS__}, sizeof((tg_str[]){__VA_ARGS__}) / sizeof(tg_str))
tg_str tg_join_all(const tg_str *parts, size_t count);
/* Whether the text is UTF-8, which the gateway requires of all text. */
bool tg_is_utf8(tg_str text);

/* ---- JSON -------------------------------------------------------------------------------------------------------- */

typedef enum {
    /* Not JSON, or no such member. */
    TG_JSON_NONE,
    TG_JSON_NULL,
    TG_JSON_BOOL,
    TG_JSON_NUMBER,
    TG_JSON_STRING,
    TG_JSON_ARRAY,
    TG_JSON_OBJECT,
} tg_json_kind;

/* A value: its kind, and its text in the document. */
typedef struct {
    tg_json_kind kind;
    tg_str text;
} tg_json;

/* Parses a document. The result is TG_JSON_NONE unless the whole document is JSON by RFC 8259, nested at most 64 deep. */
tg_json tg_json_parse(tg_str document);
/* A member of an object; the last one if the name is repeated. TG_JSON_NONE if there is none, or if the value is not an object. */
tg_json tg_json_member(tg_json object, const char *name);
/* The value at an index of an array, from 0. */
tg_json tg_json_item(tg_json array, size_t index);
/* Returns whether the value is a string, and sets `text` if so. */
bool tg_json_string(tg_json value, tg_str *text);
/* Returns whether the value is an integer that fits, and sets `number` if so. */
bool tg_json_integer(tg_json value, int64_t *number);
/* Whether the value is `true`. */
bool tg_json_true(tg_json value);

#endif
