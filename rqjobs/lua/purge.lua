-- Deletes jobs whole.
-- ARGV: RQ's prefix, which ('failed': dead ones, 'waiting': waiting or delayed ones), then for each job: id, queue.
-- Answers the ids that were such and are gone; the others are left alone.
local prefix, failed, done = ARGV[1], ARGV[2] == 'failed', {}
for i = 3, #ARGV, 2 do
  local id, queue, out = ARGV[i], ARGV[i + 1], 0
  if failed then
    out = redis.call('ZREM', prefix .. ':failed:' .. queue, id)
  else
    out = redis.call('ZREM', prefix .. ':scheduled:' .. queue, id) + redis.call('LREM', prefix .. ':queue:' .. queue, 1, id)
  end
  if out > 0 then
    redis.call('DEL', prefix .. ':job:' .. id, prefix .. ':job:' .. id .. ':dependents',
               prefix .. ':job::' .. id .. ':dependencies', prefix .. ':executions:' .. id, prefix .. ':results:' .. id)
    done[#done + 1] = id
  end
end
return done
