-- Reads revocations, and the present time of this server. Writes nothing.
-- KEYS: 1 the hash of revocations, by id.
-- ARGV: 1 maximum entries of the hash, 2 maximum bytes of an entry, 3 'all', or 'ids' and then the ids to read.
-- Returns the present time in ms since 1970, and { id, value, id, value, … }.
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local entries = {}
local function add(id, value)
  -- A larger entry is not a revocation that a gateway wrote.
  if value and #id + #value <= tonumber(ARGV[2]) then
    entries[#entries + 1] = id
    entries[#entries + 1] = value
  end
end
if ARGV[3] == 'all' then
  local count = redis.call('HLEN', KEYS[1])
  if count > tonumber(ARGV[1]) then
    return redis.error_reply('TOOMANY ' .. KEYS[1] .. ' has ' .. count .. ' entries, and gateways write at most ' .. ARGV[1])
  end
  local stored = redis.call('HGETALL', KEYS[1])
  for i = 1, #stored, 2 do
    add(stored[i], stored[i + 1])
  end
else
  for i = 4, #ARGV do
    add(ARGV[i], redis.call('HGET', KEYS[1], ARGV[i]))
  end
end
return { now, entries }
