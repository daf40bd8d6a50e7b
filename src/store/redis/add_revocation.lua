-- Adds a revocation that ends some time after the present time of this server, unless enough others are active. Removes some of those that
-- ended, and all of them if there may be too many: a look at ten thousand entries holds up the server for some 20 ms.
-- KEYS: 1 the hash of revocations, by id.
-- ARGV: 1 id, 2 the revocation as a JSON object without its end, 3 ms until its end, 4 maximum active revocations.
-- Returns the present time and the end in ms since 1970; false as the end if there are too many.
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local max_active = tonumber(ARGV[4])
local stored, active = nil, 0
if redis.call('HLEN', KEYS[1]) < max_active then
  stored = redis.call('HRANDFIELD', KEYS[1], 32, 'WITHVALUES')
else
  stored = redis.call('HGETALL', KEYS[1])
end
for i = 1, #stored, 2 do
  -- An entry that is not a revocation has no end, and stays.
  local ends = tonumber(string.match(stored[i + 1], '"until":(%d+)'))
  if ends and ends <= now then
    redis.call('HDEL', KEYS[1], stored[i])
  elseif ends then
    active = active + 1
  end
end
if active >= max_active then
  return { now, false }
end
local ends = now + tonumber(ARGV[3])
redis.call('HSET', KEYS[1], ARGV[1], string.sub(ARGV[2], 1, -2) .. string.format(',"until":%.0f}', ends))
return { now, ends }
