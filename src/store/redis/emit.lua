-- Adds an entry and publishes its notification, atomically. An emit that is tried again first looks for the entry of the first attempt, by
-- the emitter's token, and only publishes its notification again if the entry is there.
-- KEYS: 1 the stream, which is also the pub/sub channel.
-- ARGV: 1 data, 2 event, 3 type, 4 the beginning of the notification, 5 maximum length of the stream or '', 6 seconds until the stream
-- expires or '', 7 the emitter's token or '', 8 '1' to look for the token, 9 maximum entries to look at, 10 their maximum age against the
-- last one in ms, 11 their maximum bytes.
-- Returns the entry's id and 'added' or 'found'; or 'uncertain', if it was added and an earlier attempt may have added it too; or
-- 'conflict', if the entry with this token has other content.

-- The state of a look-up that did not find the entry: 'added', or 'uncertain' if the entry may have been there.
local function look_up()
  local found = redis.pcall('XREVRANGE', KEYS[1], '+', '-', 'COUNT', 1)
  -- The Redis user may lack the right.
  if found.err then return 'uncertain' end
  if #found == 0 then
    -- A stream that expires soon may have had the entry.
    local expires = ARGV[6] ~= '' and tonumber(ARGV[6]) * 1000 < tonumber(ARGV[10])
    if redis.call('EXISTS', KEYS[1]) == 1 or expires then return 'uncertain' end
    return 'added'
  end
  local newest = tonumber(string.match(found[1][1], '^(%d+)'))
  local oldest = string.format('%.0f', math.max(0, newest - tonumber(ARGV[10])))
  local left, bytes, largest, to, step = tonumber(ARGV[9]), tonumber(ARGV[11]), 0, '+', 1
  while left > 0 and bytes > 0 do
    -- XREVRANGE copies every entry into this script, so that a step reads as many as probably fit.
    local asked = math.min(step, left)
    local chunk = redis.call('XREVRANGE', KEYS[1], to, oldest, 'COUNT', asked)
    for _, entry in ipairs(chunk) do
      local size, fields = 0, {}
      for i = 1, #entry[2], 2 do
        size = size + #entry[2][i] + #entry[2][i + 1]
        fields[entry[2][i]] = entry[2][i + 1]
      end
      if fields['token'] == ARGV[7] then
        local is_same = fields['data'] == ARGV[1] and fields['event'] == ARGV[2] and fields['type'] == ARGV[3]
        return is_same and 'found' or 'conflict', entry[1]
      end
      bytes = bytes - size
      if size > largest then largest = size end
      to = '(' .. entry[1]
    end
    left = left - #chunk
    if #chunk < asked then
      -- All entries of this time were looked at. Others of this time were trimmed if the stream begins later.
      if oldest ~= '0' and #redis.call('XREVRANGE', KEYS[1], '(' .. oldest .. '-0', '-', 'COUNT', 1) > 0 then
        return 'added'
      end
      local raw, info = redis.pcall('XINFO', 'STREAM', KEYS[1]), {}
      if raw.err then return 'uncertain' end
      for i = 1, #raw, 2 do info[raw[i]] = raw[i + 1] end
      return info['entries-added'] == info['length'] and 'added' or 'uncertain'
    end
    step = math.max(1, math.min(64, math.floor(bytes / (largest + 1))))
  end
  return 'uncertain'
end

local outcome, id = 'added', nil
if ARGV[8] == '1' then outcome, id = look_up() end
if outcome == 'conflict' then return { id, outcome } end
if not id then
  local add = { 'XADD', KEYS[1] }
  if ARGV[5] ~= '' then
    add[3], add[4], add[5] = 'MAXLEN', '=', ARGV[5]
  end
  for _, arg in ipairs({ '*', 'data', ARGV[1], 'event', ARGV[2], 'channel', KEYS[1], 'type', ARGV[3] }) do
    add[#add + 1] = arg
  end
  if ARGV[7] ~= '' then
    add[#add + 1], add[#add + 2] = 'token', ARGV[7]
  end
  id = redis.call(unpack(add))
  if ARGV[6] ~= '' then redis.call('EXPIRE', KEYS[1], ARGV[6]) end
end
redis.call('PUBLISH', KEYS[1], ARGV[4] .. ',"id":"' .. id .. '"}')
return { id, outcome }
