const std = @import("std");
const support = @import("support.zig");
const c = support.c;

/// Admits during office hours, from Monday to Friday.
export fn authorize(_: *const c.tg_request, _: c.tg_list) c.tg_answer {
    const now: std.time.epoch.EpochSeconds = .{ .secs = c.tg_now() / 1000 };
    const weekday = (now.getEpochDay().day + 3) % 7;
    const hour = now.getDaySeconds().getHoursIntoDay();
    if (weekday > 4 or hour < 8 or hour >= 18) return support.reject("closed");
    return c.tg_allow(support.text("alice"));
}
