-- Returns the first entries of a list, without those that are too large. KEYS: 1 the list. ARGV: 1 the number of entries, 2 maximum
-- bytes of one.
local entries = {}
for _, entry in ipairs(redis.call('LRANGE', KEYS[1], 0, ARGV[1] - 1)) do
  if #entry <= tonumber(ARGV[2]) then
    entries[#entries + 1] = entry
  end
end
return entries
