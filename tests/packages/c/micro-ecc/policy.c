#include "hex.h"
#include "tidegate.h"
#include "uECC.h"

/* A cookie is the user, a dot, and the signature of the SHA-256 of the user. The test knows one user. */
tg_answer authorize(const tg_request *request, tg_list channels) {
    tg_str cookie, setting;
    uint8_t key[64], hash[32], signature[64];
    (void)channels;
    if (!tg_setting("PUBLIC_KEY", &setting) || from_hex(setting, key, sizeof key) != 64) return tg_reject(503, "No key");
    if (!tg_setting("HASH", &setting) || from_hex(setting, hash, sizeof hash) != 32) return tg_reject(503, "No hash");
    if (!tg_cookie(request, "session", &cookie) || !tg_starts_with(cookie, tg("alice."))) return tg_reject(401, "Unauthorized");
    if (from_hex(tg_from(cookie, 6), signature, sizeof signature) != 64) return tg_reject(401, "Unauthorized");
    if (!uECC_verify(key, hash, sizeof hash, signature, uECC_secp256r1())) return tg_reject(401, "Unauthorized");
    return tg_allow(tg("alice"));
}
