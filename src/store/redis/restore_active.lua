-- Makes a record the active one that the store has lost, or changes nothing.
-- KEYS: 1 the active record, 2 the pending record, 3 the history; then the record's blobs.
-- ARGV: 1 the active record that is there ('' for none), 2 the record, 3 the pub/sub channel for changes.
-- Returns 'done', or 'conflict' for another active record, 'pending' during a push, 'missing' for a missing blob.
local active = ''
if redis.call('TYPE', KEYS[1]).ok == 'string' then active = redis.call('GET', KEYS[1]) end
if active ~= ARGV[1] then
  return 'conflict'
end
-- A value without an expiry was not written by a push.
if redis.call('PTTL', KEYS[2]) >= 0 then
  return 'pending'
end
for i = 4, #KEYS do
  if redis.call('EXISTS', KEYS[i]) == 0 then
    return 'missing'
  end
end
for i = 4, #KEYS do
  redis.call('PERSIST', KEYS[i])
end
redis.call('SET', KEYS[1], ARGV[2])
local is_known = false
for _, record in ipairs(redis.call('LRANGE', KEYS[3], 0, -1)) do
  if record == ARGV[2] then is_known = true end
end
-- The next commit removes the oldest entries, with their blobs.
if not is_known then
  redis.call('LPUSH', KEYS[3], ARGV[2])
end
redis.call('PUBLISH', ARGV[3], 'changed')
return 'done'
