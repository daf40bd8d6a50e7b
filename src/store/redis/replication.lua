-- Reads how far the replicas of this server are. KEYS: 1 any key that this server has, so that a Cluster sends the script here.
-- Returns the replication id, this server's offset, the greatest offset of a replica ('' without one).
local info = redis.call('INFO', 'replication')
local greatest = ''
for offset in string.gmatch(info, 'slave%d+:[^\r\n]*offset=(%d+)') do
  if greatest == '' or tonumber(offset) > tonumber(greatest) then greatest = offset end
end
local id, offset = string.match(info, 'master_replid:(%w+)'), string.match(info, 'master_repl_offset:(%d+)')
return { id or '', offset or '0', greatest, redis.call('EXISTS', KEYS[1]) }
