-- Reads entries of a stream within limits, and the state of the whole stream at the same moment.
-- KEYS: 1 the stream, 2 (optional) the barrier stream.
-- ARGV: 1 the position to read after, 2 maximum entries, 3 maximum bytes of all entries, 4 maximum bytes of one entry.
-- Returns the id of the barrier stream's last entry, and false if the stream does not exist, else: its last generated id, the number of
-- entries ever added (false before Redis 7.0), its length, its first id, the greatest deleted id, whether nothing follows the returned
-- entries, the bytes that the next entry needs if it alone exceeds the limit, and the entries as { id, fields }, without fields (false)
-- if the entry is larger than ARGV[4].

local function read_info(key)
  local info = {}
  local raw = redis.call('XINFO', 'STREAM', key)
  for i = 1, #raw, 2 do info[raw[i]] = raw[i + 1] end
  return info
end

-- A barrier stream that does not exist or is of another type counts as empty. Any other error fails the read, such as a missing right of
-- the Redis user: without the barrier a gateway would deliver events that a command forbids.
local barrier = '0-0'
if KEYS[2] and redis.call('TYPE', KEYS[2]).ok == 'stream' then
  local last = read_info(KEYS[2])['last-entry']
  if last then barrier = last[1] end
end

local kind = redis.call('TYPE', KEYS[1]).ok
if kind == 'none' then return { barrier, false } end
if kind ~= 'stream' then return redis.error_reply('WRONGTYPE not a stream') end

local info = read_info(KEYS[1])
local first = info['first-entry'] and info['first-entry'][1]

local max_entries, max_bytes, max_event = tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local entries, used, largest, needs, complete = {}, 0, 0, false, 1
local at, step = ARGV[1], 1
-- Most reads bring one entry, or none.
while complete == 1 and at ~= info['last-generated-id'] do
  -- XRANGE copies every entry into this script. So the first step reads one entry, and the next ones as many as probably fit, judging
  -- by the largest entry so far.
  local chunk = redis.call('XRANGE', KEYS[1], '(' .. at, '+', 'COUNT', step)
  for _, entry in ipairs(chunk) do
    local size = 0
    for _, text in ipairs(entry[2]) do size = size + #text end
    if #entries >= max_entries then complete = 0 break end
    if size > max_event then
      entries[#entries + 1] = { entry[1], false }
    elseif used + size > max_bytes then
      if #entries == 0 then needs = size end
      complete = 0
      break
    else
      entries[#entries + 1] = entry
      used = used + size
    end
    if size > largest then largest = size end
    at = entry[1]
  end
  if #chunk < step then break end
  step = math.max(1, math.min(64, max_entries - #entries + 1, math.floor((max_bytes - used) / (largest + 1))))
end
return { barrier, { info['last-generated-id'], info['entries-added'] or false, info['length'], first or false,
  info['max-deleted-entry-id'] or '0-0', complete, needs, entries } }
