//! What the policies of this folder share.

const std = @import("std");
pub const c = @cImport(@cInclude("tidegate.h"));

/// Memory for one decision.
var buffer: [16 << 10]u8 = undefined;
pub var fixed: std.heap.FixedBufferAllocator = .init(&buffer);

/// Admits the subject of the bearer token, if `check(signed, signature)` finds its signature right.
pub fn authorizeToken(request: *const c.tg_request, algorithm: []const u8, comptime check: anytype) c.tg_answer {
    var token: c.tg_str = undefined;
    if (!c.tg_bearer(request, &token)) return reject("no token");
    return verify(slice(token), algorithm, check) catch |err| reject(@errorName(err));
}

fn verify(token: []const u8, algorithm: []const u8, comptime check: anytype) !c.tg_answer {
    const end = std.mem.lastIndexOfScalar(u8, token, '.') orelse return error.NoToken;
    const start = std.mem.indexOfScalar(u8, token, '.').? + 1;
    if (start > end) return error.NoToken;
    var header: [256]u8 = undefined;
    const Header = struct { alg: []const u8 };
    const parsed = try std.json.parseFromSliceLeaky(Header, fixed.allocator(), try decode(token[0 .. start - 1], &header), .{ .ignore_unknown_fields = true });
    if (!std.mem.eql(u8, parsed.alg, algorithm)) return error.Algorithm;
    var signature: [64]u8 = undefined;
    try check(token[0..end], try decode(token[end + 1 ..], &signature));
    // The claims are parts of it, so that it has to outlive this call.
    const payload = try fixed.allocator().alloc(u8, 1024);
    const Claims = struct { sub: []const u8, exp: u64 };
    const claims = try std.json.parseFromSliceLeaky(Claims, fixed.allocator(), try decode(token[start..end], payload), .{ .ignore_unknown_fields = true });
    if (claims.exp * 1000 <= c.tg_now()) return error.Expired;
    return c.tg_allow(text(claims.sub));
}

/// Decodes base64url into `room`.
pub fn decode(encoded: []const u8, room: []u8) ![]u8 {
    const decoder = std.base64.url_safe_no_pad.Decoder;
    const size = try decoder.calcSizeForSlice(encoded);
    if (size > room.len) return error.TooLong;
    try decoder.decode(room[0..size], encoded);
    return room[0..size];
}

pub fn reject(reason: []const u8) c.tg_answer {
    c.tg_reason(text(reason));
    return c.tg_reject(401, "Unauthorized");
}

pub fn text(bytes: []const u8) c.tg_str {
    return .{ .ptr = @constCast(bytes.ptr), .len = bytes.len };
}

pub fn slice(string: c.tg_str) []const u8 {
    return if (string.len == 0) "" else string.ptr[0..string.len];
}

pub fn setting(name: [*:0]const u8) []const u8 {
    var value: c.tg_str = undefined;
    return if (c.tg_setting(name, &value)) slice(value) else "";
}
