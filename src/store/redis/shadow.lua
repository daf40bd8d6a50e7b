-- Another candidate to be asked beside what is in force, or none.
-- KEYS: the candidate, the history.
-- ARGV: what has to be the candidate ('*' for whatever is), the new one ('' for none), the bytes of a note, the beginning of blobs' keys,
-- for how many ms the blobs of the one before stay, the bell, and the blobs of the new one.
local was = ''
if redis.call('TYPE', KEYS[1]).ok == 'string' then
  was = redis.call('GETRANGE', KEYS[1], 0, ARGV[3])
end
if ARGV[1] ~= '*' and was ~= ARGV[1] then
  return 'moved'
end
for i = 7, #ARGV do
  if redis.call('EXISTS', ARGV[4] .. ARGV[i]) == 0 then
    return 'gone'
  end
end
for i = 7, #ARGV do
  redis.call('PERSIST', ARGV[4] .. ARGV[i])
end
if ARGV[2] == '' then
  redis.call('DEL', KEYS[1])
else
  redis.call('SET', KEYS[1], ARGV[2])
end
-- A push of just that may be under way, so that they are not gone at once.
local kept = table.concat(redis.call('LRANGE', KEYS[2], 0, -1)) .. ARGV[2]
for digest in string.gmatch(was, 'sha256:(%x+)') do
  if not string.find(kept, digest, 1, true) then
    redis.call('PEXPIRE', ARGV[4] .. digest, ARGV[5])
  end
end
redis.call('PUBLISH', ARGV[6], 'look')
return 'done'
