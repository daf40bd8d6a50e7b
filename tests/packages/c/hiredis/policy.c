#include "hiredis.h"
#include "tidegate.h"

tg_answer authorize(const tg_request *request, tg_list channels) {
    tg_str session;
    (void)channels;
    if (!tg_cookie(request, "session", &session)) return tg_reject(401, "Unauthorized");
    redisContext *redis = redisConnect("127.0.0.1", 6379);
    redisReply *user = redisCommand(redis, "GET session:%b", session.ptr, session.len);
    return user != NULL && user->type == REDIS_REPLY_STRING ? tg_allow(tg(user->str)) : tg_reject(401, "Unauthorized");
}
