#include <stdlib.h>
#include <string.h>

#define uthash_fatal(message) abort()
#include "tidegate.h"
#include "uthash.h"

/* The first part of a channel, and who may read it. */
struct area {
    const char *name;
    const char *role;
    UT_hash_handle hh;
};

static struct area areas[] = {{.name = "room", .role = "member"}, {.name = "ops", .role = "admin"}, {.name = "billing", .role = "admin"}};

tg_answer authorize(const tg_request *request, tg_list channels) {
    tg_str role;
    struct area *table = NULL, *found;
    for (size_t i = 0; i < sizeof areas / sizeof areas[0]; i++) {
        HASH_ADD_KEYPTR(hh, table, areas[i].name, strlen(areas[i].name), &areas[i]);
    }
    if (!tg_request_header(request, "x-role", &role)) return tg_reject(401, "Unauthorized");
    for (size_t i = 0; i < channels.len; i++) {
        tg_str channel = channels.ptr[i];
        size_t length = 0;
        while (length < channel.len && channel.ptr[length] != '-') length++;
        HASH_FIND(hh, table, channel.ptr, length, found);
        if (found == NULL || !tg_equal(role, tg(found->role))) return tg_reject(403, "Forbidden");
    }
    return tg_allow(tg("alice"));
}
