-- Replaces the shadow record, or changes nothing.
-- KEYS: 1 the shadow record, 2 the history; then the blobs of the new record (ARGV[6] of them); then the blobs of the old one.
-- ARGV: 1 the expected record ('' for none, or for a value that is not a string), 2 the new record ('' for none), 3 maximum bytes of a
-- record, 4 ms until the blobs of the old record expire, 5 the pub/sub channel for changes, 6 the number of new blobs; then the digest of
-- each old blob, in the order of their keys.
-- Returns 'done', or 'conflict' for another record than the expected one, 'missing' for a missing blob.
local old = ''
if redis.call('TYPE', KEYS[1]).ok == 'string' then
  old = redis.call('GETRANGE', KEYS[1], 0, ARGV[3])
end
if old ~= ARGV[1] then
  return 'conflict'
end
local new_blobs = tonumber(ARGV[6])
for i = 3, 2 + new_blobs do
  if redis.call('EXISTS', KEYS[i]) == 0 then
    return 'missing'
  end
end
for i = 3, 2 + new_blobs do
  redis.call('PERSIST', KEYS[i])
end
if ARGV[2] == '' then
  redis.call('DEL', KEYS[1])
else
  redis.call('SET', KEYS[1], ARGV[2])
end
-- A push of the old shadow policy may be in progress, so its blobs expire later and are not deleted now.
local still_named = table.concat(redis.call('LRANGE', KEYS[2], 0, -1)) .. ARGV[2]
for i = 7, #ARGV do
  if not string.find(still_named, ARGV[i], 1, true) then
    redis.call('PEXPIRE', KEYS[new_blobs + i - 4], ARGV[4])
  end
end
redis.call('PUBLISH', ARGV[5], 'changed')
return 'done'
