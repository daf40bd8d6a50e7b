const std = @import("std");
const support = @import("support.zig");
const c = support.c;

export fn authorize(request: *const c.tg_request, _: c.tg_list) c.tg_answer {
    var key: c.tg_str = undefined;
    var hash: c.tg_str = undefined;
    if (!c.tg_request_header(request, "x-api-key", &key)) return support.reject("no key");
    if (c.tg_get(support.text("key:alice"), &hash) != c.TG_FOUND) return support.reject("unknown key");
    std.crypto.pwhash.bcrypt.strVerify(support.slice(hash), support.slice(key), .{ .silently_truncate_password = false }) catch |err| return support.reject(@errorName(err));
    return c.tg_allow(support.text("alice"));
}
