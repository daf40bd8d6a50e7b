/* The exported function, and the host functions. They call bindings/policy.c, or test_gateway.c in a native test. */
#include <stdlib.h>

#include "tidegate.h"

tg_answer tg_allow(tg_str subject) {
    return (tg_answer){.allowed = true, .subject = subject};
}

tg_answer tg_reject(uint16_t status, const char *text) {
    tg_answer answer = {.status = status, .body = tg(text)};
    tg_header(&answer, "content-type", tg("text/plain"));
    return answer;
}

void tg_header(tg_answer *answer, const char *name, tg_str value) {
    tidegate_policy_types_header_t header = {tg(name), {value.ptr, value.len}};
    bool may_repeat = tg_equal(header.name, tg("set-cookie"));
    for (size_t i = 0; i < answer->headers.len && !may_repeat; i++) {
        if (tg_equal(answer->headers.ptr[i].name, header.name)) {
            answer->headers.ptr[i] = header;
            return;
        }
    }
    tidegate_policy_types_header_t *all = malloc((answer->headers.len + 1) * sizeof header);
    if (all == NULL) abort();
    for (size_t i = 0; i < answer->headers.len; i++) all[i] = answer->headers.ptr[i];
    all[answer->headers.len] = header;
    answer->headers.ptr = all;
    answer->headers.len++;
}

bool exports_tidegate_policy_authorizer_authorize(exports_tidegate_policy_authorizer_request_t *request,
                                                  policy_list_string_t *channels,
                                                  exports_tidegate_policy_authorizer_grant_t *grant,
                                                  exports_tidegate_policy_authorizer_rejection_t *rejection) {
    tg_answer answer = authorize(request, *channels);
    if (!answer.allowed) {
        rejection->status = answer.status;
        rejection->headers = answer.headers;
        rejection->body = (policy_list_u8_t){answer.body.ptr, answer.body.len};
        return false;
    }
    grant->subject = (policy_option_string_t){answer.subject.len > 0, answer.subject};
    grant->channels = (policy_option_list_string_t){answer.channels.len > 0, answer.channels};
    grant->expires_at = (policy_option_u64_t){answer.expires_at > 0, answer.expires_at};
    grant->headers = answer.headers;
    return true;
}

/* Replaces text that is not UTF-8, because passing it to the gateway would trap. */
static tg_str to_utf8(tg_str text) {
    return tg_is_utf8(text) ? text : tg("(text that is not UTF-8)");
}

void tg_reason(tg_str text) {
    text = to_utf8(text);
    tidegate_policy_answer_reason(&text);
}

void tg_replay_since(uint64_t time) {
    tidegate_policy_answer_replay_since(time);
}

void tg_cache_for(uint32_t seconds, tg_list vary) {
    tidegate_policy_answer_cache_for(seconds, &vary);
}

void tg_cache_any_address(void) {
    tidegate_policy_answer_cache_any_address();
}

static tg_lookup lookup_error(tidegate_policy_lookup_error_t error) {
    return error.tag == TIDEGATE_POLICY_LOOKUP_ERROR_DENIED ? TG_DENIED : TG_UNAVAILABLE;
}

static tg_lookup take(policy_option_list_u8_t found, tg_str *value) {
    if (!found.is_some) return TG_NOT_FOUND;
    *value = (tg_str){found.val.ptr, found.val.len};
    return TG_FOUND;
}

tg_lookup tg_get(tg_str key, tg_str *value) {
    policy_option_list_u8_t found;
    tidegate_policy_lookup_error_t error;
    /* Keys are UTF-8, so no other key has a value. */
    if (!tg_is_utf8(key)) return TG_NOT_FOUND;
    return tidegate_policy_lookup_get(&key, &found, &error) ? take(found, value) : lookup_error(error);
}

tg_lookup tg_hash_get(tg_str key, tg_str field, tg_str *value) {
    policy_option_list_u8_t found;
    tidegate_policy_lookup_error_t error;
    if (!tg_is_utf8(key) || !tg_is_utf8(field)) return TG_NOT_FOUND;
    return tidegate_policy_lookup_hash_get(&key, &field, &found, &error) ? take(found, value) : lookup_error(error);
}

tg_lookup tg_set_contains(tg_str key, tg_str member) {
    bool contains;
    tidegate_policy_lookup_error_t error;
    if (!tg_is_utf8(key) || !tg_is_utf8(member)) return TG_NOT_FOUND;
    if (!tidegate_policy_lookup_set_contains(&key, &member, &contains, &error)) return lookup_error(error);
    return contains ? TG_FOUND : TG_NOT_FOUND;
}

static tg_token token_error(tidegate_policy_tokens_error_t error) {
    switch (error.tag) {
    case TIDEGATE_POLICY_TOKENS_ERROR_MALFORMED: return TG_TOKEN_MALFORMED;
    case TIDEGATE_POLICY_TOKENS_ERROR_UNTRUSTED: return TG_TOKEN_UNTRUSTED;
    case TIDEGATE_POLICY_TOKENS_ERROR_EXPIRED: return TG_TOKEN_EXPIRED;
    case TIDEGATE_POLICY_TOKENS_ERROR_CLAIMS: return TG_TOKEN_CLAIMS;
    default: return TG_TOKEN_UNAVAILABLE;
    }
}

tg_token tg_verify(tg_str token, tg_str *claims) {
    tidegate_policy_tokens_error_t error;
    if (!tg_is_utf8(token)) return TG_TOKEN_MALFORMED;
    return tidegate_policy_tokens_verify(&token, claims, &error) ? TG_TOKEN_VALID : token_error(error);
}

tg_token tg_verify_with(const char *profile, tg_str token, tg_str *claims) {
    tg_str name = tg(profile);
    tidegate_policy_tokens_error_t error;
    if (!tg_is_utf8(token)) return TG_TOKEN_MALFORMED;
    return tidegate_policy_tokens_verify_with(&name, &token, claims, &error) ? TG_TOKEN_VALID : token_error(error);
}

bool tg_setting(const char *name, tg_str *value) {
    tg_str key = tg(name);
    return tidegate_policy_settings_get(&key, value);
}

uint64_t tg_now(void) {
    return tidegate_policy_context_now();
}

tg_str tg_request_id(void) {
    tg_str id;
    tidegate_policy_context_request_id(&id);
    return id;
}

tg_str tg_action(void) {
    tg_str action;
    tidegate_policy_context_action(&action);
    return action;
}

void tg_log(tg_level level, tg_str message) {
    message = to_utf8(message);
    tidegate_policy_context_log((tidegate_policy_context_level_t)level, &message);
}
