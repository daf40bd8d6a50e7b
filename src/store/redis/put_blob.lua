-- Writes a blob that expires, or never expires if it already exists without an expiry. An existing value is overwritten, because only
-- its digest could prove that it is the same, and this script computes none.
-- KEYS: 1 the blob. ARGV: 1 the content, 2 ms until it expires.
if redis.call('TTL', KEYS[1]) == -1 then
  redis.call('SET', KEYS[1], ARGV[1])
else
  redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
end
