/* Tidegate policies in C: read the request, look things up, answer. README.md beside this file says how to build one.
 *
 * Nothing has to be freed: all memory belongs to the decision and goes with it. */
#ifndef TIDEGATE_H
#define TIDEGATE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "bindings/policy.h"

/* Text or bytes: a pointer and a length, not ended by a zero. */
typedef policy_string_t tg_str;
/* Several of them. */
typedef policy_list_string_t tg_list;
/* The client's request: method, scheme, authority, path_with_query, headers, client_address. */
typedef tidegate_policy_types_request_t tg_request;

/* ---- the policy ------------------------------------------------------------------------------------------------- */

/* What the policy says. Made by `tg_allow` and `tg_reject`. */
typedef struct {
    bool allowed;
    /* Of a rejection. */
    uint16_t status;
    tg_str body;
    /* Of a grant: who it is (empty: nobody in particular), the channels it gets (none: all that were asked for), and when
     * it ends, in ms since 1970 (0: not by itself). */
    tg_str subject;
    tg_list channels;
    uint64_t expires_at;
    /* Of both; see `tg_header`. */
    tidegate_policy_types_list_header_t headers;
} tg_answer;

/* The one function that a policy defines: may this client read these channels? There is at least one, and none twice. */
tg_answer authorize(const tg_request *request, tg_list channels);

/* Lets the client in. */
tg_answer tg_allow(tg_str subject);
/* Keeps it out, with a text/plain body. */
tg_answer tg_reject(uint16_t status, const char *text);
/* Adds a header to the answer, or changes it: a grant may have `set-cookie` and `x-…`, a rejection any. */
void tg_header(tg_answer *answer, const char *name, tg_str value);

/* Why, for the decision log. Never sent to the client. */
void tg_reason(tg_str text);
/* Nothing older than this (ms since 1970) is replayed to the client. */
void tg_replay_since(uint64_t time);
/* The answer may be given again for so many seconds to the same request, if the headers named in `vary` are the same. */
void tg_cache_for(uint32_t seconds, tg_list vary);
/* ... and to clients of any address. */
void tg_cache_any_address(void);

/* ---- the request: each returns whether it is there, and sets `value` if so --------------------------------------- */

/* The first header of that name; the name in lower case. */
bool tg_request_header(const tg_request *request, const char *name, tg_str *value);
/* The first cookie of that name. */
bool tg_cookie(const tg_request *request, const char *name, tg_str *value);
/* The token of `authorization: Bearer <token>`. */
bool tg_bearer(const tg_request *request, tg_str *value);
/* The first query parameter of that name, decoded. */
bool tg_query(const tg_request *request, const char *name, tg_str *value);

/* ---- the gateway ------------------------------------------------------------------------------------------------- */

typedef enum {
    TG_FOUND,
    TG_NOT_FOUND,
    /* The operator allowed no such key. */
    TG_DENIED,
    /* The store did not answer in time, or answered with an error. */
    TG_UNAVAILABLE,
} tg_lookup;

tg_lookup tg_get(tg_str key, tg_str *value);
tg_lookup tg_hash_get(tg_str key, tg_str field, tg_str *value);
/* Whether the set at `key` holds `member`: TG_FOUND or TG_NOT_FOUND, or why that is not known. */
tg_lookup tg_set_contains(tg_str key, tg_str member);

typedef enum {
    TG_TOKEN_VALID,
    TG_TOKEN_MALFORMED,
    /* The signature, the algorithm or the key does not hold. */
    TG_TOKEN_UNTRUSTED,
    TG_TOKEN_EXPIRED,
    /* Issuer, audience or not-before does not hold. */
    TG_TOKEN_CLAIMS,
    /* No key could be had. */
    TG_TOKEN_UNAVAILABLE,
} tg_token;

/* Checks a JSON Web Token against the profile of its issuer; `claims` is JSON. */
tg_token tg_verify(tg_str token, tg_str *claims);
/* The same against one profile of the operator's. */
tg_token tg_verify_with(const char *profile, tg_str token, tg_str *claims);

/* One of the operator's settings. */
bool tg_setting(const char *name, tg_str *value);
/* The gateway's clock, in ms since 1970. */
uint64_t tg_now(void);
/* The same in every log line about this request. */
tg_str tg_request_id(void);
/* `stream` or `history`. */
tg_str tg_action(void);

typedef enum { TG_DEBUG, TG_INFO, TG_WARN, TG_ERROR } tg_level;

/* To the gateway's log. */
void tg_log(tg_level level, tg_str message);

/* ---- text -------------------------------------------------------------------------------------------------------- */

/* Text that ends with a zero, such as a literal. */
tg_str tg(const char *text);
bool tg_equal(tg_str a, tg_str b);
bool tg_starts_with(tg_str text, tg_str beginning);
/* What is left of `text` after so many bytes. */
tg_str tg_from(tg_str text, size_t start);
/* Without the white space around it. */
tg_str tg_trim(tg_str text);
/* A number in decimal. */
tg_str tg_decimal(uint64_t number);
/* All of them in one: tg_join(tg("session:"), id). */
#define tg_join(...) \
    tg_join_all((tg_str[]){__VA_ARGS__}, sizeof((tg_str[]){__VA_ARGS__}) / sizeof(tg_str))
tg_str tg_join_all(const tg_str *parts, size_t count);
/* Whether it is UTF-8, as all text for the gateway has to be. */
bool tg_is_utf8(tg_str text);

/* ---- JSON -------------------------------------------------------------------------------------------------------- */

typedef enum {
    /* No JSON, or no such member. */
    TG_JSON_NONE,
    TG_JSON_NULL,
    TG_JSON_BOOL,
    TG_JSON_NUMBER,
    TG_JSON_STRING,
    TG_JSON_ARRAY,
    TG_JSON_OBJECT,
} tg_json_kind;

/* A value: what it is, and where it stands in its document. */
typedef struct {
    tg_json_kind kind;
    tg_str text;
} tg_json;

/* Reads a document. One that is not wholly JSON as RFC 8259 has it, or that is nested more than 64 deep, is TG_JSON_NONE. */
tg_json tg_json_parse(tg_str document);
/* An object's member; the last one where a name stands twice. TG_JSON_NONE if there is none or it is no object. */
tg_json tg_json_member(tg_json object, const char *name);
/* An array's value at an index, from 0. */
tg_json tg_json_item(tg_json array, size_t index);
/* Whether it is a string, and which. */
bool tg_json_string(tg_json value, tg_str *text);
/* Whether it is a whole number that fits, and which. */
bool tg_json_integer(tg_json value, int64_t *number);
/* Whether it is `true`. */
bool tg_json_true(tg_json value);

#endif
