-- Writes a blob that expires in ARGV[2] ms, or never if it already has no expiry. An existing value is overwritten: only its digest
-- says whether it is the right one, and this script does not compute digests.
if redis.call('TTL', KEYS[1]) == -1 then
  redis.call('SET', KEYS[1], ARGV[1])
else
  redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
end
