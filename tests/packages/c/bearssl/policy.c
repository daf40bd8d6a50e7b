#include "bearssl.h"
#include "hex.h"
#include "tidegate.h"

tg_answer authorize(const tg_request *request, tg_list channels) {
    tg_str cookie, secret;
    uint8_t expected[32], given[32], difference = 0;
    (void)channels;
    if (!tg_setting("SECRET", &secret)) return tg_reject(503, "No secret");
    if (!tg_cookie(request, "session", &cookie) || cookie.len < 66) return tg_reject(401, "Unauthorized");
    tg_str user = {cookie.ptr, cookie.len - 65};
    if (from_hex(tg_from(cookie, cookie.len - 64), given, sizeof given) != 32) return tg_reject(401, "Unauthorized");
    br_hmac_key_context key;
    br_hmac_context context;
    br_hmac_key_init(&key, &br_sha256_vtable, secret.ptr, secret.len);
    br_hmac_init(&context, &key, 0);
    br_hmac_update(&context, user.ptr, user.len);
    br_hmac_out(&context, expected);
    for (size_t i = 0; i < sizeof expected; i++) difference |= expected[i] ^ given[i];
    return difference == 0 ? tg_allow(user) : tg_reject(401, "Unauthorized");
}
