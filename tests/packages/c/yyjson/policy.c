#include "yyjson.h"
#include "tidegate.h"

tg_answer authorize(const tg_request *request, tg_list channels) {
    tg_str session, record;
    (void)channels;
    if (!tg_cookie(request, "session", &session)) return tg_reject(401, "Unauthorized");
    if (tg_get(tg_join(tg("session:"), session), &record) != TG_FOUND) return tg_reject(401, "Unauthorized");
    yyjson_doc *document = yyjson_read((const char *)record.ptr, record.len, 0);
    const char *id = yyjson_get_str(yyjson_obj_get(yyjson_doc_get_root(document), "id"));
    return id != NULL ? tg_allow(tg(id)) : tg_reject(401, "Unauthorized");
}
