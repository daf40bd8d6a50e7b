const std = @import("std");
const c = @cImport({
    @cInclude("tidegate.h");
    @cDefine("JSMN_HEADER", "");
    @cInclude("jsmn.h");
});

export fn authorize(request: *const c.tg_request, _: c.tg_list) c.tg_answer {
    var id: c.tg_str = undefined;
    var record: c.tg_str = undefined;
    if (!c.tg_cookie(request, "session", &id)) return reject("no session");
    var key: [256]u8 = undefined;
    const name = std.fmt.bufPrint(&key, "session:{s}", .{slice(id)}) catch return reject("too long");
    if (c.tg_get(text(name), &record) != c.TG_FOUND) return reject("unknown session");
    const user = member(slice(record), "id") orelse return reject("no id");
    return c.tg_allow(text(user));
}

fn member(document: []const u8, name: []const u8) ?[]const u8 {
    var parser: c.jsmn_parser = undefined;
    var tokens: [32]c.jsmntok_t = undefined;
    c.jsmn_init(&parser);
    const count = c.jsmn_parse(&parser, document.ptr, document.len, &tokens, tokens.len);
    if (count < 1 or tokens[0].type != c.JSMN_OBJECT) return null;
    var at: usize = 1;
    while (at + 1 < count) : (at += @intCast(1 + tokens[at].size)) {
        const value = tokens[at + 1];
        if (value.type == c.JSMN_STRING and std.mem.eql(u8, part(document, tokens[at]), name)) return part(document, value);
    }
    return null;
}

fn part(document: []const u8, token: c.jsmntok_t) []const u8 {
    return document[@intCast(token.start)..@intCast(token.end)];
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
