#define JSMN_STRICT
#define JSMN_STATIC
#include "jsmn.h"
#include "tidegate.h"

/* The string at a member of an object. */
static bool member(tg_str document, const char *name, tg_str *value) {
    jsmn_parser parser;
    jsmntok_t tokens[32];
    jsmn_init(&parser);
    int count = jsmn_parse(&parser, (const char *)document.ptr, document.len, tokens, 32);
    if (count < 1 || tokens[0].type != JSMN_OBJECT) return false;
    for (int i = 1; i + 1 < count; i += 1 + tokens[i].size) {
        tg_str key = {document.ptr + tokens[i].start, (size_t)(tokens[i].end - tokens[i].start)};
        jsmntok_t next = tokens[i + 1];
        if (!tg_equal(key, tg(name)) || next.type != JSMN_STRING) continue;
        *value = (tg_str){document.ptr + next.start, (size_t)(next.end - next.start)};
        return true;
    }
    return false;
}

tg_answer authorize(const tg_request *request, tg_list channels) {
    tg_str session, record, user;
    (void)channels;
    if (!tg_cookie(request, "session", &session)) return tg_reject(401, "Unauthorized");
    switch (tg_get(tg_join(tg("session:"), session), &record)) {
    case TG_FOUND: return member(record, "id", &user) ? tg_allow(user) : tg_reject(401, "Unauthorized");
    case TG_NOT_FOUND: return tg_reject(401, "Unauthorized");
    default: return tg_reject(503, "Try again");
    }
}
