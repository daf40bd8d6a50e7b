-- Commits a push: makes its record the active one, or changes nothing.
-- KEYS: 1 the active record, 2 the pending record, 3 the history, 4 the shadow record; then the blobs of the new record (ARGV[8] of
-- them); then the blobs that the history names.
-- ARGV: 1 the expected active record ('' for none), 2 the expected pending record, 3 the new record, 4 maximum entries of the history,
-- 5 the pub/sub channel for changes, 6 the shadow record to remove ('' for none), 7 maximum bytes of a record, 8 the number of new
-- blobs; then the digest of each blob that the history names, in the order of their keys.
-- Returns 'done', or 'conflict' for another active record, 'expired' for another pending record, 'missing' for a missing blob.
if (redis.call('GET', KEYS[1]) or '') ~= ARGV[1] then
  return 'conflict'
end
if redis.call('GET', KEYS[2]) ~= ARGV[2] then
  return 'expired'
end
local new_blobs = tonumber(ARGV[8])
for i = 5, 4 + new_blobs do
  if redis.call('EXISTS', KEYS[i]) == 0 then
    return 'missing'
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
-- The blobs of an entry that is removed from the history are deleted, unless another entry or the shadow record names them too. Keys are
-- not built from digests, because a script may only use keys that it is given: the caller has read the history and passes them. The
-- history cannot have changed since, because every commit changes the active record as well.
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
