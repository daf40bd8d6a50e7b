const std = @import("std");
const support = @import("support.zig");
const c = support.c;

export fn authorize(_: *const c.tg_request, _: c.tg_list) c.tg_answer {
    var threaded: std.Io.Threaded = .init_single_threaded;
    var client: std.http.Client = .{ .allocator = support.fixed.allocator(), .io = threaded.io() };
    const result = client.fetch(.{ .location = .{ .url = "https://auth.example/keys" } }) catch |err| return support.reject(@errorName(err));
    return if (result.status == .ok) c.tg_allow(support.text("alice")) else support.reject("status");
}
