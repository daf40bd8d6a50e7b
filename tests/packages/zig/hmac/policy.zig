const std = @import("std");
const support = @import("support.zig");
const c = support.c;

const Hmac = std.crypto.auth.hmac.sha2.HmacSha256;

export fn authorize(request: *const c.tg_request, _: c.tg_list) c.tg_answer {
    return support.authorizeToken(request, "HS256", check);
}

fn check(signed: []const u8, given: []const u8) !void {
    var expected: [Hmac.mac_length]u8 = undefined;
    Hmac.create(&expected, signed, support.setting("SECRET"));
    if (given.len != expected.len) return error.Signature;
    if (!std.crypto.timing_safe.eql([Hmac.mac_length]u8, expected, given[0..Hmac.mac_length].*)) return error.Signature;
}
