const std = @import("std");
const support = @import("support.zig");
const c = support.c;

export fn authorize(_: *const c.tg_request, _: c.tg_list) c.tg_answer {
    var threaded: std.Io.Threaded = .init_single_threaded;
    var source: std.Random.IoSource = .{ .io = threaded.io() };
    var answer = c.tg_allow(support.text("alice"));
    var id: [16]u8 = undefined;
    source.interface().bytes(&id);
    c.tg_header(&answer, "x-trace", support.text(&id));
    return answer;
}
