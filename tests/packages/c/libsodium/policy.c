#include "lib/include/sodium.h"
#include "tidegate.h"

tg_answer authorize(const tg_request *request, tg_list channels) {
    (void)request, (void)channels;
    return sodium_init() < 0 ? tg_reject(503, "Try again") : tg_allow(tg("alice"));
}
