const std = @import("std");
const c = @cImport(@cInclude("tidegate.h"));

export fn authorize(request: *const c.tg_request, _: c.tg_list) c.tg_answer {
    var key: c.tg_str = undefined;
    var hash: c.tg_str = undefined;
    if (!c.tg_request_header(request, "x-api-key", &key)) return reject("no key");
    if (c.tg_get(text("key:alice"), &hash) != c.TG_FOUND) return reject("unknown key");
    std.crypto.pwhash.bcrypt.strVerify(slice(hash), slice(key), .{ .silently_truncate_password = false }) catch |err| return reject(@errorName(err));
    return c.tg_allow(text("alice"));
}

fn reject(reason: []const u8) c.tg_answer {
    c.tg_reason(text(reason));
    return c.tg_reject(401, "Unauthorized");
}

fn text(bytes: []const u8) c.tg_str {
    return .{ .ptr = @constCast(bytes.ptr), .len = bytes.len };
}

fn slice(string: c.tg_str) []const u8 {
    return if (string.len == 0) "" else string.ptr[0..string.len];
}

fn setting(name: [*:0]const u8) []const u8 {
    var value: c.tg_str = undefined;
    return if (c.tg_setting(name, &value)) slice(value) else "";
}
