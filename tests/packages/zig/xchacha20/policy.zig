const std = @import("std");
const c = @cImport(@cInclude("tidegate.h"));

const Aead = std.crypto.aead.chacha_poly.XChaCha20Poly1305;

/// A session is the nonce, the encrypted JSON and the tag.
export fn authorize(request: *const c.tg_request, _: c.tg_list) c.tg_answer {
    var cookie: c.tg_str = undefined;
    if (!c.tg_cookie(request, "session", &cookie)) return reject("no session");
    return open(slice(cookie)) catch |err| reject(@errorName(err));
}

const Session = struct { id: []const u8, exp: u64 };

fn open(cookie: []const u8) !c.tg_answer {
    var key: [Aead.key_length]u8 = undefined;
    std.crypto.hash.sha2.Sha256.hash(setting("SECRET"), &key, .{});
    var room: [1024]u8 = undefined;
    const sealed = try decode(cookie, &room);
    if (sealed.len < Aead.nonce_length + Aead.tag_length) return error.TooShort;
    const end = sealed.len - Aead.tag_length;
    const nonce = sealed[0..Aead.nonce_length].*;
    const tag = sealed[end..][0..Aead.tag_length].*;
    var plain: [1024]u8 = undefined;
    const message = plain[0 .. end - Aead.nonce_length];
    try Aead.decrypt(message, sealed[Aead.nonce_length..end], tag, "session", nonce, key);
    const session = try std.json.parseFromSliceLeaky(Session, fixed.allocator(), message, .{});
    if (session.exp * 1000 <= c.tg_now()) return error.Expired;
    return c.tg_allow(text(session.id));
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
