const std = @import("std");
const support = @import("support.zig");
const c = support.c;

const Ed25519 = std.crypto.sign.Ed25519;

export fn authorize(request: *const c.tg_request, _: c.tg_list) c.tg_answer {
    return support.authorizeToken(request, "EdDSA", check);
}

fn check(signed: []const u8, given: []const u8) !void {
    var bytes: [Ed25519.PublicKey.encoded_length]u8 = undefined;
    if ((try support.decode(support.setting("PUBLIC_KEY"), &bytes)).len != bytes.len) return error.Key;
    if (given.len != Ed25519.Signature.encoded_length) return error.Signature;
    const signature = Ed25519.Signature.fromBytes(given[0..Ed25519.Signature.encoded_length].*);
    try signature.verify(signed, try Ed25519.PublicKey.fromBytes(bytes));
}
