const std = @import("std");
const support = @import("support.zig");
const c = support.c;

const Session = struct { id: []const u8, role: enum { member, admin } };

export fn authorize(request: *const c.tg_request, _: c.tg_list) c.tg_answer {
    var id: c.tg_str = undefined;
    var record: c.tg_str = undefined;
    if (!c.tg_cookie(request, "session", &id)) return support.reject("no session");
    const key = std.fmt.allocPrint(support.fixed.allocator(), "session:{s}", .{support.slice(id)}) catch return support.reject("too long");
    if (c.tg_get(support.text(key), &record) != c.TG_FOUND) return support.reject("unknown session");
    const session = std.json.parseFromSliceLeaky(Session, support.fixed.allocator(), support.slice(record), .{}) catch |err| return support.reject(@errorName(err));
    return c.tg_allow(support.text(session.id));
}
