-- Adds an entry and publishes its notification, atomically.
-- KEYS: 1 the stream, which is also the pub/sub channel.
-- ARGV: 1 data, 2 event, 3 type, 4 the beginning of the notification, 5 maximum length of the stream or '', 6 seconds until the stream
-- expires or ''. Returns the entry's id.
local add = { 'XADD', KEYS[1] }
if ARGV[5] ~= '' then
  add[3], add[4], add[5] = 'MAXLEN', '=', ARGV[5]
end
for _, arg in ipairs({ '*', 'data', ARGV[1], 'event', ARGV[2], 'channel', KEYS[1], 'type', ARGV[3] }) do
  add[#add + 1] = arg
end
local id = redis.call(unpack(add))
if ARGV[6] ~= '' then redis.call('EXPIRE', KEYS[1], ARGV[6]) end
redis.call('PUBLISH', KEYS[1], ARGV[4] .. ',"id":"' .. id .. '"}')
return id
