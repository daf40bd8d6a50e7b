const std = @import("std");
const c = @cImport(@cInclude("tidegate.h"));

/// Admits during office hours, from Monday to Friday.
export fn authorize(_: *const c.tg_request, _: c.tg_list) c.tg_answer {
    const now: std.time.epoch.EpochSeconds = .{ .secs = c.tg_now() / 1000 };
    const weekday = (now.getEpochDay().day + 3) % 7;
    const hour = now.getDaySeconds().getHoursIntoDay();
    if (weekday > 4 or hour < 8 or hour >= 18) return reject("closed");
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
