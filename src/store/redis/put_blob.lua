-- Writes a blob that expires in ARGV[2] ms, unless it is kept already. What is there is written over: only its digest says whether it
-- is right, and that is not known here.
if redis.call('TTL', KEYS[1]) == -1 then
  redis.call('SET', KEYS[1], ARGV[1])
else
  redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
end
