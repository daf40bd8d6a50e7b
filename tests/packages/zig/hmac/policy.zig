const std = @import("std");
const c = @cImport(@cInclude("tidegate.h"));

const Hmac = std.crypto.auth.hmac.sha2.HmacSha256;

export fn authorize(request: *const c.tg_request, _: c.tg_list) c.tg_answer {
    var token: c.tg_str = undefined;
    if (!c.tg_bearer(request, &token)) return reject("no token");
    return verify(slice(token)) catch |err| reject(@errorName(err));
}

fn verify(token: []const u8) !c.tg_answer {
    const end = std.mem.lastIndexOfScalar(u8, token, '.') orelse return error.NoToken;
    const start = std.mem.indexOfScalar(u8, token, '.').? + 1;
    if (start > end) return error.NoToken;
    var header: [256]u8 = undefined;
    const Header = struct { alg: []const u8 };
    const parsed = try std.json.parseFromSliceLeaky(Header, fixed.allocator(), try decode(token[0 .. start - 1], &header), .{ .ignore_unknown_fields = true });
    if (!std.mem.eql(u8, parsed.alg, "HS256")) return error.Algorithm;
    var signature: [64]u8 = undefined;
    const given = try decode(token[end + 1 ..], &signature);
    try check(token[0..end], given);
    var payload: [1024]u8 = undefined;
    return admit(try decode(token[start..end], &payload));
}

fn check(signed: []const u8, given: []const u8) !void {
    var expected: [Hmac.mac_length]u8 = undefined;
    Hmac.create(&expected, signed, setting("SECRET"));
    if (given.len != expected.len) return error.Signature;
    if (!std.crypto.timing_safe.eql([Hmac.mac_length]u8, expected, given[0..Hmac.mac_length].*)) return error.Signature;
}

const Claims = struct { sub: []const u8, exp: u64 };

fn admit(payload: []const u8) !c.tg_answer {
    const claims = try std.json.parseFromSliceLeaky(Claims, fixed.allocator(), payload, .{ .ignore_unknown_fields = true });
    if (claims.exp * 1000 <= c.tg_now()) return error.Expired;
    return c.tg_allow(text(claims.sub));
}

fn decode(encoded: []const u8, room: []u8) ![]u8 {
    const decoder = std.base64.url_safe_no_pad.Decoder;
    const size = try decoder.calcSizeForSlice(encoded);
    if (size > room.len) return error.TooLong;
    try decoder.decode(room[0..size], encoded);
    return room[0..size];
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
