const std = @import("std");
const support = @import("support.zig");
const c = support.c;

const Aead = std.crypto.aead.chacha_poly.XChaCha20Poly1305;

/// A session is the nonce, the encrypted JSON and the tag.
export fn authorize(request: *const c.tg_request, _: c.tg_list) c.tg_answer {
    var cookie: c.tg_str = undefined;
    if (!c.tg_cookie(request, "session", &cookie)) return support.reject("no session");
    return open(support.slice(cookie)) catch |err| support.reject(@errorName(err));
}

const Session = struct { id: []const u8, exp: u64 };

fn open(cookie: []const u8) !c.tg_answer {
    var key: [Aead.key_length]u8 = undefined;
    std.crypto.hash.sha2.Sha256.hash(support.setting("SECRET"), &key, .{});
    var room: [1024]u8 = undefined;
    const sealed = try support.decode(cookie, &room);
    if (sealed.len < Aead.nonce_length + Aead.tag_length) return error.TooShort;
    const end = sealed.len - Aead.tag_length;
    const nonce = sealed[0..Aead.nonce_length].*;
    const tag = sealed[end..][0..Aead.tag_length].*;
    // The session is parts of it, so that it has to outlive this call.
    const message = try support.fixed.allocator().alloc(u8, end - Aead.nonce_length);
    try Aead.decrypt(message, sealed[Aead.nonce_length..end], tag, "session", nonce, key);
    const session = try std.json.parseFromSliceLeaky(Session, support.fixed.allocator(), message, .{});
    if (session.exp * 1000 <= c.tg_now()) return error.Expired;
    return c.tg_allow(support.text(session.id));
}
