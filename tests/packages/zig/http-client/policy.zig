const std = @import("std");
const c = @cImport(@cInclude("tidegate.h"));

export fn authorize(_: *const c.tg_request, _: c.tg_list) c.tg_answer {
    var threaded: std.Io.Threaded = .init_single_threaded;
    var client: std.http.Client = .{ .allocator = fixed.allocator(), .io = threaded.io() };
    const result = client.fetch(.{ .location = .{ .url = "https://auth.example/keys" } }) catch |err| return reject(@errorName(err));
    return if (result.status == .ok) c.tg_allow(text("alice")) else reject("status");
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
