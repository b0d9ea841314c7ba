-- Returns the state of a batch at one moment.
-- ARGV: RQ's prefix, our prefix, batch, the fields of the record that are wanted
-- Returns {members that have not ended, those of them that run, dead members, value of each field}; {} if there is no
--   such batch.
local prefix, ours, batch = ARGV[1], ARGV[2], ARGV[3]
local record, running = ours .. ':batch:' .. batch, 0
if redis.call('EXISTS', record) == 0 then return {} end
local open = redis.call('SCARD', record .. ':open')
if open > 0 then
  for _, queue in ipairs(redis.call('SMEMBERS', prefix .. ':queues')) do
    local claimed = redis.pcall('ZRANGE', prefix .. ':wip:' .. string.sub(queue, #prefix + 8), 0, -1)
    for _, member in ipairs(claimed.err and {} or claimed) do
      local id = string.match(member, '^(.*):[^:]*$')
      if id then running = running + redis.call('SISMEMBER', record .. ':open', id) end
    end
  end
end
return {open, running, redis.call('SCARD', record .. ':dead'), unpack(redis.call('HMGET', record, unpack(ARGV, 4)))}
