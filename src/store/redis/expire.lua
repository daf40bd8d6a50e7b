-- EXPIRE for streams only. KEYS: 1 the stream. ARGV: 1 seconds.
local kind = redis.call('TYPE', KEYS[1]).ok
if kind == 'none' then return 0 end
if kind ~= 'stream' then return redis.error_reply('WRONGTYPE not a stream') end
return redis.call('EXPIRE', KEYS[1], ARGV[1])
