-- Reads entries of a stream within limits, and the state of the whole stream at the same moment where the entries alone do not prove that
-- none is missing.
-- KEYS: 1 the stream, 2 (optional) the barrier stream.
-- ARGV: 1 the position to read after, 2 maximum entries, 3 maximum bytes of all entries, 4 maximum bytes of one entry, 5 whether an entry
-- with the id ARGV[1] was read (1 or 0), 6 the number of entries after it that are known of, 7 whether the state is wanted (1 or 0).
-- Returns the id of the barrier stream's last entry, and false if the stream does not exist, else: whether the entry ARGV[1] is there,
-- whether nothing follows the returned entries, the bytes that the next entry needs if it alone exceeds the limit, the entries as
-- { id, fields }, without fields (false) if the entry is larger than ARGV[4], and the state. That is false if the entry ARGV[1] and at
-- least ARGV[6] others are there, the last one of the stream among them, and ARGV[7] is 0; else: the last generated id, the number of
-- entries ever added (false before Redis 7.0), the length, the ids of the first and of the last entry, the greatest deleted id, and
-- the fields of the last entry if ARGV[2] is 0 and it is not larger than ARGV[3] and ARGV[4].

local function read_info(key)
  local info = {}
  local raw = redis.call('XINFO', 'STREAM', key)
  for i = 1, #raw, 2 do info[raw[i]] = raw[i + 1] end
  return info
end

local function bytes_of(fields)
  local bytes = 0
  for _, text in ipairs(fields) do bytes = bytes + #text end
  return bytes
end

-- A barrier stream that does not exist or is of another type counts as empty. Any other error fails the read, such as a missing right of
-- the Redis user: without the barrier a gateway would deliver events that a command forbids.
local barrier = '0-0'
if KEYS[2] and redis.call('TYPE', KEYS[2]).ok == 'stream' then
  local last = redis.call('XREVRANGE', KEYS[2], '+', '-', 'COUNT', 1)
  if last[1] then barrier = last[1][1] end
end

local kind = redis.call('TYPE', KEYS[1]).ok
if kind == 'none' then return { barrier, false } end
if kind ~= 'stream' then return redis.error_reply('WRONGTYPE not a stream') end

local after, is_entry, notified, wants_state = ARGV[1], ARGV[5] == '1', tonumber(ARGV[6]), ARGV[7] == '1'
local max_entries, max_bytes, max_event = tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local entries, used, largest, needs, complete, has_after = {}, 0, 0, false, 1, 0
-- XRANGE copies every entry into this script. So the first step reads one entry and what follows it, and the next ones as many as probably
-- fit, judging by the largest entry so far. Most reads bring one entry, or none.
local from, step = '(' .. after, 2
if is_entry then from, step = after, 3 end
if max_entries == 0 then complete, wants_state = 0, true end
while complete == 1 do
  local chunk = redis.call('XRANGE', KEYS[1], from, '+', 'COUNT', step)
  for _, entry in ipairs(chunk) do
    if entry[1] == after then
      has_after = 1
    else
      local size = bytes_of(entry[2])
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
    end
    from = '(' .. entry[1]
  end
  if #chunk < step then break end
  step = math.max(1, math.min(64, max_entries - #entries + 1, math.floor((max_bytes - used) / (largest + 1))))
end

local state = false
if wants_state or has_after == 0 or complete == 0 or #entries < notified then
  local info = read_info(KEYS[1])
  local first, last = info['first-entry'], info['last-entry']
  state = { info['last-generated-id'], info['entries-added'] or false, info['length'], first and first[1] or false,
    last and last[1] or false, info['max-deleted-entry-id'] or '0-0', false }
  if max_entries == 0 and last and bytes_of(last[2]) <= math.min(max_bytes, max_event) then state[7] = last[2] end
end
return { barrier, { has_after, complete, needs, entries, state } }
