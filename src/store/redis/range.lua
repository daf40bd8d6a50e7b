-- Reads a range of a stream, like XRANGE, unless it is too large. XRANGE alone would copy the whole answer first.
-- KEYS: 1 the stream.
-- ARGV: 1 start, 2 end, 3 the maximum number of entries (empty: no limit), 4 maximum bytes, 5 bytes of a text in addition to its own.
-- Returns the entries, or false if they have more bytes.

local left, max_bytes, overhead = tonumber(ARGV[3]) or math.huge, tonumber(ARGV[4]), tonumber(ARGV[5])
local entries, used, largest = {}, 0, 0
local from, step = ARGV[1], 1
while true do
  local asked = math.min(step, left)
  local chunk = redis.call('XRANGE', KEYS[1], from, ARGV[2], 'COUNT', asked)
  for _, entry in ipairs(chunk) do
    local size = #entry[1] + 2 * overhead
    for _, text in ipairs(entry[2]) do size = size + #text + overhead end
    used = used + size
    if used > max_bytes then return false end
    if size > largest then largest = size end
    entries[#entries + 1] = entry
  end
  left = left - #chunk
  -- No id follows the greatest one, and XRANGE refuses to start after it.
  if #chunk < asked or left < 1 or chunk[#chunk][1] == '18446744073709551615-18446744073709551615' then break end
  from = '(' .. chunk[#chunk][1]
  step = math.max(1, math.min(64, math.floor((max_bytes - used) / (largest + 1))))
end
return entries
