const std = @import("std");
const support = @import("support.zig");
const c = support.c;

const Ecdsa = std.crypto.sign.ecdsa.EcdsaP256Sha256;

export fn authorize(request: *const c.tg_request, _: c.tg_list) c.tg_answer {
    return support.authorizeToken(request, "ES256", check);
}

fn check(signed: []const u8, given: []const u8) !void {
    var point: [65]u8 = undefined;
    point[0] = 4;
    if ((try support.decode(support.setting("X"), point[1..33])).len != 32 or (try support.decode(support.setting("Y"), point[33..65])).len != 32) return error.Key;
    if (given.len != Ecdsa.Signature.encoded_length) return error.Signature;
    const signature = Ecdsa.Signature.fromBytes(given[0..Ecdsa.Signature.encoded_length].*);
    try signature.verify(signed, try Ecdsa.PublicKey.fromSec1(&point));
}
