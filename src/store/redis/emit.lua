-- Adds an entry and publishes its notification, atomically. The notification names the previous entry, so that its receiver need not
-- read the stream.
-- KEYS: 1 the stream, which is also the pub/sub channel.
-- ARGV: 1 data, 2 event, 3 type, 4 the beginning of the notification, 5 maximum length of the stream or '', 6 seconds until the stream
-- expires or ''. Returns the entry's id.
local prev = '0-0'
if redis.call('EXISTS', KEYS[1]) == 1 then
  local raw = redis.call('XINFO', 'STREAM', KEYS[1])
  for i = 1, #raw, 2 do
    if raw[i] == 'last-generated-id' then prev = raw[i + 1] end
  end
end
local add = { 'XADD', KEYS[1] }
if ARGV[5] ~= '' then
  add[3], add[4], add[5] = 'MAXLEN', '=', ARGV[5]
end
for _, arg in ipairs({ '*', 'data', ARGV[1], 'event', ARGV[2], 'channel', KEYS[1], 'type', ARGV[3] }) do
  add[#add + 1] = arg
end
local id = redis.call(unpack(add))
if ARGV[6] ~= '' then redis.call('EXPIRE', KEYS[1], ARGV[6]) end
redis.call('PUBLISH', KEYS[1], ARGV[4] .. ',"id":"' .. id .. '","prev":"' .. prev .. '"}')
return id
