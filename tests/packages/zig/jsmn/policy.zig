const std = @import("std");
const support = @import("support.zig");
const c = support.c;
const jsmn = @cImport({
    @cDefine("JSMN_HEADER", "");
    @cInclude("jsmn.h");
});

export fn authorize(request: *const c.tg_request, _: c.tg_list) c.tg_answer {
    var id: c.tg_str = undefined;
    var record: c.tg_str = undefined;
    if (!c.tg_cookie(request, "session", &id)) return support.reject("no session");
    var key: [256]u8 = undefined;
    const name = std.fmt.bufPrint(&key, "session:{s}", .{support.slice(id)}) catch return support.reject("too long");
    if (c.tg_get(support.text(name), &record) != c.TG_FOUND) return support.reject("unknown session");
    const user = member(support.slice(record), "id") orelse return support.reject("no id");
    return c.tg_allow(support.text(user));
}

fn member(document: []const u8, name: []const u8) ?[]const u8 {
    var parser: jsmn.jsmn_parser = undefined;
    var tokens: [32]jsmn.jsmntok_t = undefined;
    jsmn.jsmn_init(&parser);
    const count = jsmn.jsmn_parse(&parser, document.ptr, document.len, &tokens, tokens.len);
    if (count < 1 or tokens[0].type != jsmn.JSMN_OBJECT) return null;
    var at: usize = 1;
    while (at + 1 < count) : (at += @intCast(1 + tokens[at].size)) {
        const value = tokens[at + 1];
        if (value.type == jsmn.JSMN_STRING and std.mem.eql(u8, part(document, tokens[at]), name)) return part(document, value);
    }
    return null;
}

fn part(document: []const u8, token: jsmn.jsmntok_t) []const u8 {
    return document[@intCast(token.start)..@intCast(token.end)];
}
