-- Puts a pointer in force, or does nothing.
-- KEYS: what is in force, the candidate, the history, and what is asked beside.
-- ARGV: what has to be in force ('' for nothing), what has to be the candidate, the new pointer, how many are remembered, the beginning
-- of blobs' keys, the bell, what is asked beside no longer ('' for nothing), the bytes of a note, and the blobs of the new one.
if (redis.call('GET', KEYS[1]) or '') ~= ARGV[1] then
  return 'moved'
end
if redis.call('GET', KEYS[2]) ~= ARGV[2] then
  return 'lost'
end
for i = 9, #ARGV do
  if redis.call('EXISTS', ARGV[5] .. ARGV[i]) == 0 then
    return 'gone'
  end
end
for i = 9, #ARGV do
  redis.call('PERSIST', ARGV[5] .. ARGV[i])
end
redis.call('SET', KEYS[1], ARGV[3])
redis.call('DEL', KEYS[2])
redis.call('LPUSH', KEYS[3], ARGV[3])
local beside = ''
if redis.call('TYPE', KEYS[4]).ok == 'string' then
  beside = redis.call('GETRANGE', KEYS[4], 0, ARGV[8])
end
if ARGV[7] ~= '' and beside == ARGV[7] then
  redis.call('DEL', KEYS[4])
  beside = ''
end
-- What is forgotten leaves its blobs, unless something that is remembered has them too.
while redis.call('LLEN', KEYS[3]) > tonumber(ARGV[4]) do
  local old = redis.call('RPOP', KEYS[3])
  local rest = table.concat(redis.call('LRANGE', KEYS[3], 0, -1)) .. beside
  for digest in string.gmatch(old, 'sha256:(%x+)') do
    if not string.find(rest, digest, 1, true) then
      redis.call('DEL', ARGV[5] .. digest)
    end
  end
end
redis.call('PUBLISH', ARGV[6], 'look')
return 'done'
