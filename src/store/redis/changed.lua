-- Finds the streams that have changed since they were read. It copies at most two entries of each.
-- KEYS: the streams, and (optional) the barrier stream.
-- ARGV: for each stream, the id of its last entry, or '' if it did not exist.
-- Returns the id of the barrier stream's last entry, and the indices of the streams (from 1) that have another last entry, have lost that
-- one, or cannot be read.

-- As in read.lua: a barrier stream that does not exist or is of another type counts as empty, and any other error fails the script.
local barrier_key, barrier = KEYS[#ARGV + 1], '0-0'
if barrier_key and redis.call('TYPE', barrier_key).ok == 'stream' then
  local last = redis.call('XREVRANGE', barrier_key, '+', '-', 'COUNT', 1)
  if last[1] then barrier = last[1][1] end
end

local changed = {}
for index, last in ipairs(ARGV) do
  local is_same
  if last == '' then
    is_same = redis.call('TYPE', KEYS[index]).ok == 'none'
  else
    local entries = redis.pcall('XRANGE', KEYS[index], last, '+', 'COUNT', 2)
    is_same = #entries == 1 and entries[1][1] == last
  end
  if not is_same then changed[#changed + 1] = index end
end
return { barrier, changed }
