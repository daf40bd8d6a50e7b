/* A Tidegate policy that allows every channel to clients with a session. */
#include "tidegate.h"

/* Rejects the client, with a reason for the decision log. The reason must not contain the session's id. */
static tg_answer reject(uint16_t status, const char *text, const char *reason) {
    tg_reason(tg(reason));
    return tg_reject(status, text);
}

/* Parses the id in a session such as {"id":"alice"}. A session without an id is invalid. */
static bool read_id(tg_str record, tg_str *id) {
    return tg_json_string(tg_json_member(tg_json_parse(record), "id"), id) && id->len > 0;
}

tg_answer authorize(const tg_request *request, tg_list channels) {
    tg_str session, record, id;
    if (!tg_cookie(request, "session", &session) || session.len == 0) return reject(401, "Unauthorized", "no session");
    switch (tg_get(tg_join(tg("session:"), session), &record)) {
    case TG_FOUND: break;
    case TG_NOT_FOUND: return reject(401, "Unauthorized", "unknown session");
    case TG_DENIED: return reject(503, "Try again", "look-up denied");
    case TG_UNAVAILABLE: return reject(503, "Try again", "look-up unavailable");
    }
    if (!read_id(record, &id)) return reject(401, "Unauthorized", "unknown session");
    tg_reason(tg_join(id, tg(": "), tg_decimal(channels.len), tg(" channels")));
    return tg_allow(id);
}
