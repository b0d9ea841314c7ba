-- Deletes the first jobs of a queue or of a registry whole; called until it answers 0, so that Redis is never held up.
-- ARGV: RQ's prefix, the registry (queue, failed, finished, canceled, deferred or scheduled), the queue, how many.
local prefix, registry = ARGV[1], ARGV[1] .. ':' .. ARGV[2] .. ':' .. ARGV[3]
local ids
if ARGV[2] == 'queue' then
  ids = redis.call('LPOP', registry, ARGV[4]) or {}
else
  ids = redis.call('ZRANGE', registry, 0, ARGV[4] - 1)
  if #ids > 0 then redis.call('ZREM', registry, unpack(ids)) end
end
for _, id in ipairs(ids) do
  redis.call('DEL', prefix .. ':job:' .. id, prefix .. ':job:' .. id .. ':dependents',
             prefix .. ':job::' .. id .. ':dependencies', prefix .. ':executions:' .. id, prefix .. ':results:' .. id)
end
return #ids
