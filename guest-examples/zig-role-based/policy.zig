//! A Tidegate policy with sessions, roles and teams, over the SDK for C.

const std = @import("std");
const c = @cImport({
    @cInclude("tidegate.h");
    if (@import("builtin").is_test) @cInclude("tidegate_test.h");
});

/// Logs why the policy ends.
pub const panic = std.debug.FullPanic(logPanic);

fn logPanic(message: []const u8, _: ?usize) noreturn {
    c.tg_log(c.TG_ERROR, text(message));
    @trap();
}

const User = struct { id: []const u8, is_admin: bool };

/// Checks the session first. Then the first channel that the user may not read determines the rejection.
export fn authorize(request: *const c.tg_request, channels: c.tg_list) c.tg_answer {
    var rejection: c.tg_answer = undefined;
    const user = signIn(request, &rejection) orelse return rejection;
    for (channels.ptr[0..channels.len]) |channel| {
        if (check(user, slice(channel))) |answer| return answer;
    }
    reason("{s}: {d} channels", .{ user.id, channels.len });
    return c.tg_allow(text(user.id));
}

/// Returns the user whose session the cookie names, or null and the rejection. The reasons do not contain the session's id.
fn signIn(request: *const c.tg_request, rejection: *c.tg_answer) ?User {
    var session: c.tg_str = undefined;
    var record: c.tg_str = undefined;
    if (!c.tg_cookie(request, "session", &session) or session.len == 0) {
        rejection.* = reject(401, "Unauthorized", "no session", .{});
        return null;
    }
    const found = c.tg_get(join("session:{s}", .{slice(session)}), &record);
    if (found == c.TG_DENIED or found == c.TG_UNAVAILABLE) {
        rejection.* = lookupFailed(found);
        return null;
    }
    if (found == c.TG_FOUND) {
        if (readUser(slice(record))) |user| return user;
    }
    rejection.* = reject(401, "Unauthorized", "unknown session", .{});
    return null;
}

/// Parses {"id":"alice","role":"member"}. A session without an id is invalid; roles other than `admin` are ignored.
fn readUser(record: []const u8) ?User {
    const options: std.json.ParseOptions = .{ .duplicate_field_behavior = .use_last };
    const session = std.json.parseFromSliceLeaky(std.json.Value, memory, record, options) catch return null;
    const id = member(session, "id") orelse return null;
    if (id.len == 0) return null;
    return .{ .id = id, .is_admin = std.mem.eql(u8, member(session, "role") orelse "", "admin") };
}

/// Returns a member of an object if it is a string.
fn member(value: std.json.Value, name: []const u8) ?[]const u8 {
    if (value != .object) return null;
    const found = value.object.get(name) orelse return null;
    return if (found == .string) found.string else null;
}

/// Returns the rejection if the user may not read the channel.
fn check(user: User, channel: []const u8) ?c.tg_answer {
    if (std.mem.eql(u8, channel, "default")) return null;
    if (std.mem.startsWith(u8, channel, "admin-")) {
        if (user.is_admin) return null;
        return reject(403, "Admin access required", "{s} is not an admin", .{user.id});
    }
    if (std.mem.startsWith(u8, channel, "team-")) {
        const team = channel["team-".len..];
        return switch (c.tg_set_contains(join("team:{s}:members", .{team}), text(user.id))) {
            c.TG_FOUND => null,
            c.TG_NOT_FOUND => reject(403, "Not a team member", "{s} is not in team {s}", .{ user.id, team }),
            else => |failure| lookupFailed(failure),
        };
    }
    if (owns(user.id, channel)) return null;
    return reject(403, "You can only access your own channels", "{s} is not a channel of {s}", .{ channel, user.id });
}

fn owns(id: []const u8, channel: []const u8) bool {
    if (!std.mem.startsWith(u8, channel, id)) return false;
    return channel.len == id.len or channel[id.len] == '-';
}

fn lookupFailed(failure: c.tg_lookup) c.tg_answer {
    const cause = if (failure == c.TG_DENIED) "denied" else "unavailable";
    return reject(503, "Try again", "look-up {s}", .{cause});
}

fn reject(status: u16, body: [*:0]const u8, comptime reason_format: []const u8, arguments: anytype) c.tg_answer {
    reason(reason_format, arguments);
    return c.tg_reject(status, body);
}

fn reason(comptime format: []const u8, arguments: anytype) void {
    c.tg_reason(join(format, arguments));
}

/// The SDK's allocator. Its memory lives as long as the decision.
const memory: std.mem.Allocator = .{ .ptr = undefined, .vtable = &.{
    .alloc = allocate,
    .resize = std.mem.Allocator.noResize,
    .remap = std.mem.Allocator.noRemap,
    .free = std.mem.Allocator.noFree,
} };

extern fn malloc(size: usize) ?[*]u8;

fn allocate(_: *anyopaque, size: usize, _: std.mem.Alignment, _: usize) ?[*]u8 {
    return malloc(size);
}

fn join(comptime format: []const u8, arguments: anytype) c.tg_str {
    return text(std.fmt.allocPrint(memory, format, arguments) catch @panic("out of memory"));
}

fn text(bytes: []const u8) c.tg_str {
    return .{ .ptr = @constCast(bytes.ptr), .len = bytes.len };
}

fn slice(string: c.tg_str) []const u8 {
    return if (string.len == 0) "" else string.ptr[0..string.len];
}

/// Asserts the answer to a request with the cookie, such as "allowed alice" or "403 Not a team member", and its reason.
fn expect(answer: []const u8, expected_reason: []const u8, cookie: [*:0]const u8, channels: []const [*:0]const u8) !void {
    var request = c.tg_test_request("/api/realtime");
    c.tg_test_add_header(&request, "cookie", cookie);
    const given = authorize(&request, c.tg_test_list_of(@ptrCast(channels.ptr), channels.len));
    const short = if (given.allowed)
        join("allowed {s}", .{slice(given.subject)})
    else
        join("{d} {s}", .{ given.status, slice(given.body) });
    try std.testing.expectEqualStrings(answer, slice(short));
    try std.testing.expectEqualStrings(expected_reason, slice(c.tg_test_reason()));
}

fn fill() void {
    c.tg_test_reset();
    c.tg_test_set_string("session:alice", "{\"id\":\"alice\",\"role\":\"member\"}");
    c.tg_test_set_string("session:root", "{\"id\":\"root\",\"role\":\"admin\"}");
    c.tg_test_set_string("session:broken", "{\"id\":\"alice\"");
    c.tg_test_set_string("session:number", "{\"id\":7}");
    c.tg_test_add_set_member("team:red:members", "alice");
}

test "every channel requires a session" {
    fill();
    try expect("401 Unauthorized", "no session", "session=", &.{"default"});
    for ([_][*:0]const u8{ "session=mallory", "session=broken", "session=number" }) |cookie| {
        try expect("401 Unauthorized", "unknown session", cookie, &.{"admin-x"});
    }
}

test "first failing channel determines the rejection" {
    fill();
    try expect("allowed alice", "alice: 3 channels", "session=alice", &.{ "default", "team-red", "alice-inbox" });
    try expect("allowed root", "root: 1 channels", "session=root", &.{"admin-x"});
    try expect("403 Admin access required", "alice is not an admin", "session=alice", &.{ "default", "admin-x", "bob" });
    try expect("403 Not a team member", "root is not in team red", "session=root", &.{ "team-red", "bob" });
    const own = "403 You can only access your own channels";
    try expect(own, "alice2 is not a channel of alice", "session=alice", &.{"alice2"});
}

test "failed look-up is a 503" {
    fill();
    c.tg_test_fail_lookups("session:", c.TG_DENIED);
    try expect("503 Try again", "look-up denied", "session=alice", &.{"default"});
    c.tg_test_fail_lookups("team:", c.TG_UNAVAILABLE);
    try expect("503 Try again", "look-up unavailable", "session=alice", &.{"team-red"});
}
