const std = @import("std");
const c = @cImport(@cInclude("tidegate.h"));

const Session = struct { id: []const u8, role: enum { member, admin } };

export fn authorize(request: *const c.tg_request, _: c.tg_list) c.tg_answer {
    var id: c.tg_str = undefined;
    var record: c.tg_str = undefined;
    if (!c.tg_cookie(request, "session", &id)) return reject("no session");
    const key = std.fmt.allocPrint(fixed.allocator(), "session:{s}", .{slice(id)}) catch return reject("too long");
    if (c.tg_get(text(key), &record) != c.TG_FOUND) return reject("unknown session");
    const session = std.json.parseFromSliceLeaky(Session, fixed.allocator(), slice(record), .{}) catch |err| return reject(@errorName(err));
    return c.tg_allow(text(session.id));
}

/// Memory for one decision.
var buffer: [16 << 10]u8 = undefined;
var fixed: std.heap.FixedBufferAllocator = .init(&buffer);

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
