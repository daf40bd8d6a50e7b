/* A Tidegate policy with sessions, roles and teams. */
#include "tidegate.h"

typedef struct {
    tg_str id;
    bool is_admin;
} user;

/* Rejects the client, with a reason for the decision log. The reason must not contain the session's id. */
static tg_answer reject(uint16_t status, const char *text, tg_str reason) {
    tg_reason(reason);
    return tg_reject(status, text);
}

static tg_answer lookup_failed(tg_lookup failure) {
    return reject(503, "Try again", tg(failure == TG_DENIED ? "look-up denied" : "look-up unavailable"));
}

/* Parses {"id":"alice","role":"member"}. A session without an id is invalid; roles other than `admin` are ignored. */
static bool read_user(tg_str record, user *user) {
    tg_json session = tg_json_parse(record);
    tg_str role;
    user->is_admin = tg_json_string(tg_json_member(session, "role"), &role) && tg_equal(role, tg("admin"));
    return tg_json_string(tg_json_member(session, "id"), &user->id) && user->id.len > 0;
}

/* Returns whether the cookie names a known session, and sets `user` if so; otherwise sets `answer` to the rejection. */
static bool sign_in(const tg_request *request, user *user, tg_answer *answer) {
    tg_str session, record;
    if (!tg_cookie(request, "session", &session) || session.len == 0) {
        *answer = reject(401, "Unauthorized", tg("no session"));
        return false;
    }
    tg_lookup found = tg_get(tg_join(tg("session:"), session), &record);
    if (found == TG_DENIED || found == TG_UNAVAILABLE) {
        *answer = lookup_failed(found);
        return false;
    }
    if (found == TG_NOT_FOUND || !read_user(record, user)) {
        *answer = reject(401, "Unauthorized", tg("unknown session"));
        return false;
    }
    return true;
}

/* Whether the channel is the user's id, or begins with it and a hyphen. */
static bool owns(user user, tg_str channel) {
    return tg_equal(channel, user.id) || tg_starts_with(channel, tg_join(user.id, tg("-")));
}

/* Returns whether the user may read the channel; if not, sets `answer` to the rejection. */
static bool check(user user, tg_str channel, tg_answer *answer) {
    if (tg_equal(channel, tg("default"))) return true;
    if (tg_starts_with(channel, tg("admin-"))) {
        if (user.is_admin) return true;
        *answer = reject(403, "Admin access required", tg_join(user.id, tg(" is not an admin")));
        return false;
    }
    if (tg_starts_with(channel, tg("team-"))) {
        tg_str team = tg_from(channel, sizeof "team-" - 1);
        tg_lookup found = tg_set_contains(tg_join(tg("team:"), team, tg(":members")), user.id);
        if (found == TG_FOUND) return true;
        *answer = found == TG_NOT_FOUND
                      ? reject(403, "Not a team member", tg_join(user.id, tg(" is not in team "), team))
                      : lookup_failed(found);
        return false;
    }
    if (owns(user, channel)) return true;
    *answer = reject(403, "You can only access your own channels",
                     tg_join(channel, tg(" is not a channel of "), user.id));
    return false;
}

tg_answer authorize(const tg_request *request, tg_list channels) {
    user user;
    tg_answer answer;
    if (!sign_in(request, &user, &answer)) return answer;
    for (size_t i = 0; i < channels.len; i++) {
        if (!check(user, channels.ptr[i], &answer)) return answer;
    }
    tg_reason(tg_join(user.id, tg(": "), tg_decimal(channels.len), tg(" channels")));
    return tg_allow(user.id);
}
