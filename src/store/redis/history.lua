-- The first ARGV[1] entries of a list, without those of more than ARGV[2] bytes.
local entries = {}
for _, entry in ipairs(redis.call('LRANGE', KEYS[1], 0, ARGV[1] - 1)) do
  if #entry <= tonumber(ARGV[2]) then
    entries[#entries + 1] = entry
  end
end
return entries
