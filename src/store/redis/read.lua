-- Reads a part of a stream and the state of the whole stream atomically, within a limit of bytes.
-- KEYS: 1 the stream, 2 (optional) the barrier stream, whose last id is returned too.
-- ARGV: 1 the position to read after, 2 the maximum of entries, 3 the maximum of bytes, 4 the maximum bytes of one entry.
local lead = '0-0'
if KEYS[2] then
  local last = redis.pcall('XREVRANGE', KEYS[2], '+', '-', 'COUNT', 1)
  if not last.err and last[1] then lead = last[1][1] end
end

local kind = redis.call('TYPE', KEYS[1]).ok
if kind == 'none' then return { lead } end
if kind ~= 'stream' then return redis.error_reply('WRONGTYPE not a stream') end

local info = {}
local raw = redis.call('XINFO', 'STREAM', KEYS[1])
for i = 1, #raw, 2 do info[raw[i]] = raw[i + 1] end
local first = info['first-entry'] and info['first-entry'][1] or ''

local max_entries, max_bytes, max_event = tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local entries, used, largest, needs, complete = {}, 0, 0, 0, 1
local from, step = '(' .. ARGV[1], 1
while complete == 1 do
  -- Every entry of a step is copied into this script: the first one comes alone, the next ones by the sizes seen.
  local chunk = redis.call('XRANGE', KEYS[1], from, '+', 'COUNT', step)
  for _, entry in ipairs(chunk) do
    local size = 0
    for _, text in ipairs(entry[2]) do size = size + #text end
    if #entries >= max_entries then complete = 0 break end
    if size > max_event then
      entries[#entries + 1] = { entry[1], size }
    elseif used + size > max_bytes then
      if #entries == 0 then needs = size end
      complete = 0
      break
    else
      entries[#entries + 1] = entry
      used = used + size
    end
    if size > largest then largest = size end
    from = '(' .. entry[1]
  end
  if #chunk < step then break end
  step = math.max(1, math.min(64, max_entries - #entries + 1, math.floor((max_bytes - used) / (largest + 1))))
end
return { lead, info['last-generated-id'], info['entries-added'] or -1, info['length'], first,
  info['max-deleted-entry-id'] or '0-0', complete, needs, entries }
