-- Removes the names of nodes whose status expired. A node writes its status before its name, so that no live node is removed.
-- KEYS: 1 the set of names; then each node's status. ARGV: the nodes' names, in the order of their keys.
for i = 2, #KEYS do
  if redis.call('EXISTS', KEYS[i]) == 0 then
    redis.call('ZREM', KEYS[1], ARGV[i - 1])
  end
end
