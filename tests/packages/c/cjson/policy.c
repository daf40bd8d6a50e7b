#include "cJSON.h"
#include "tidegate.h"

tg_answer authorize(const tg_request *request, tg_list channels) {
    tg_str session, record;
    (void)channels;
    if (!tg_cookie(request, "session", &session)) return tg_reject(401, "Unauthorized");
    if (tg_get(tg_join(tg("session:"), session), &record) != TG_FOUND) return tg_reject(401, "Unauthorized");
    cJSON *id = cJSON_GetObjectItemCaseSensitive(cJSON_ParseWithLength((const char *)record.ptr, record.len), "id");
    return cJSON_IsString(id) ? tg_allow(tg(id->valuestring)) : tg_reject(401, "Unauthorized");
}
