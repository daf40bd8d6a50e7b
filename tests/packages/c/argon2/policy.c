#include "lib/include/argon2.h"
#include "hex.h"
#include "tidegate.h"

tg_answer authorize(const tg_request *request, tg_list channels) {
    tg_str api_key, stored;
    uint8_t hash[32], expected[32], difference = 0;
    (void)channels;
    if (!tg_request_header(request, "x-api-key", &api_key)) return tg_reject(401, "Unauthorized");
    if (tg_get(tg("key:alice"), &stored) != TG_FOUND || from_hex(stored, expected, 32) != 32) return tg_reject(503, "Try again");
    const char salt[] = "saltsaltsaltsalt";
    if (argon2id_hash_raw(1, 8192, 1, api_key.ptr, api_key.len, salt, 16, hash, sizeof hash) != ARGON2_OK) return tg_reject(503, "Try again");
    for (size_t i = 0; i < sizeof hash; i++) difference |= hash[i] ^ expected[i];
    return difference == 0 ? tg_allow(tg("alice")) : tg_reject(401, "Unauthorized");
}
