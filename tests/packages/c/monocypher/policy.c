#include "monocypher-ed25519.h"
#include "hex.h"
#include "tidegate.h"

/* A token is the signature of `<user>|<seconds since 1970>`, then this text, in hexadecimal. */
tg_answer authorize(const tg_request *request, tg_list channels) {
    tg_str text, setting;
    uint8_t key[32], token[256];
    (void)channels;
    if (!tg_setting("PUBLIC_KEY", &setting) || from_hex(setting, key, sizeof key) != 32) return tg_reject(503, "No key");
    if (!tg_bearer(request, &text)) return tg_reject(401, "Unauthorized");
    size_t length = from_hex(text, token, sizeof token);
    if (length <= 64 || crypto_ed25519_check(token, key, token + 64, length - 64) != 0) return tg_reject(401, "Unauthorized");
    size_t end = 64;
    while (end < length && token[end] != '|') end++;
    uint64_t expires = 0;
    for (size_t i = end + 1; i < length; i++) expires = expires * 10 + (token[i] - '0');
    if (expires * 1000 <= tg_now()) return tg_reject(401, "Expired");
    tg_answer answer = tg_allow(tg_join((tg_str){token + 64, end - 64}));
    answer.expires_at = expires * 1000;
    return answer;
}
