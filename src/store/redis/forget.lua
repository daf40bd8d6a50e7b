-- Forgets the names of nodes whose words expired. A word is there before its name is listed, so that none is forgotten that lives.
-- KEYS: the list of nodes, and their words' keys. ARGV: their names.
for i = 2, #KEYS do
  if redis.call('EXISTS', KEYS[i]) == 0 then
    redis.call('ZREM', KEYS[1], ARGV[i - 1])
  end
end
