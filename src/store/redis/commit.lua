-- Commits a push: makes its pointer the active one, or changes nothing.
-- KEYS: the active pointer, the pending one, the history, the shadow policy; then the blobs of the new pointer (ARGV[8] of them);
-- then the blobs that the history names.
-- ARGV: 1 the active pointer expected ('' for none), 2 the pending one expected, 3 the new pointer, 4 entries to keep in the
-- history, 5 the channel to publish on, 6 the shadow policy that this push replaces ('' for none), 7 the size limit of a pointer,
-- 8 the number of new blobs; then the digest of each blob that the history names, in the order of their keys.
if (redis.call('GET', KEYS[1]) or '') ~= ARGV[1] then
  return 'moved'
end
if redis.call('GET', KEYS[2]) ~= ARGV[2] then
  return 'lost'
end
local new_blobs = tonumber(ARGV[8])
for i = 5, 4 + new_blobs do
  if redis.call('EXISTS', KEYS[i]) == 0 then
    return 'gone'
  end
end
for i = 5, 4 + new_blobs do
  redis.call('PERSIST', KEYS[i])
end
redis.call('SET', KEYS[1], ARGV[3])
redis.call('DEL', KEYS[2])
redis.call('LPUSH', KEYS[3], ARGV[3])
local shadow = ''
if redis.call('TYPE', KEYS[4]).ok == 'string' then
  shadow = redis.call('GETRANGE', KEYS[4], 0, ARGV[7])
end
if ARGV[6] ~= '' and shadow == ARGV[6] then
  redis.call('DEL', KEYS[4])
  shadow = ''
end
-- An entry that leaves the history takes its blobs with it, unless another entry or the shadow policy names them too. Keys are not
-- built from digests: the caller read the history before and names the keys. It cannot have changed since, for every commit
-- changes the active pointer as well.
local key_of = {}
for i = 9, #ARGV do
  key_of[ARGV[i]] = KEYS[new_blobs + i - 4]
end
while redis.call('LLEN', KEYS[3]) > tonumber(ARGV[4]) do
  local old = redis.call('RPOP', KEYS[3])
  local rest = table.concat(redis.call('LRANGE', KEYS[3], 0, -1)) .. shadow
  for digest in string.gmatch(old, 'sha256:(%x+)') do
    if key_of[digest] and not string.find(rest, digest, 1, true) then
      redis.call('DEL', key_of[digest])
    end
  end
end
redis.call('PUBLISH', ARGV[5], 'changed')
return 'done'
