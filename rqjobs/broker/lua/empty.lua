-- Deletes the first jobs of a queue or of a registry with all their keys; returns their number. Called until it returns
-- 0, so that Redis is never blocked for long.
-- The waiting jobs of groups belong to their queue.
-- ARGV: RQ's prefix, the registry (queue, failed, finished, canceled, deferred or scheduled), the queue, the most jobs.
local prefix, kind, queue, count = ARGV[1], ARGV[2], ARGV[3], tonumber(ARGV[4])
local registry = prefix .. ':' .. kind .. ':' .. queue
local ids
if kind == 'queue' then
  ids = redis.call('LPOP', registry, count) or {}
  if #ids < count then pop_waiting(prefix .. 'jobs', queue, count - #ids, ids) end
else
  ids = redis.call('ZRANGE', registry, 0, count - 1)
  if #ids > 0 then redis.call('ZREM', registry, unpack(ids)) end
end
for _, id in ipairs(ids) do
  local batch = (kind == 'queue' or kind == 'scheduled') and try('HGET', prefix .. ':job:' .. id, 'batch')
  if batch then member_dead(prefix, prefix .. 'jobs', batch, id) end  -- it can never be done
  delete_job(prefix, id)
end
return #ids
