-- Deletes jobs with all their keys.
-- ARGV: RQ's prefix, our prefix, the state ('failed': dead, 'waiting': waiting or delayed), then the ids.
-- Returns the ids of the deleted jobs; jobs in another state are not changed.
local prefix, ours, failed, first_id, done = ARGV[1], ARGV[2], ARGV[3] == 'failed', 4, {}
for i = first_id, #ARGV do
  local id, out = ARGV[i], 0
  local job = try('HMGET', prefix .. ':job:' .. id, 'origin', 'batch') or {}
  local queue, batch = job[1], job[2]
  if queue and failed then
    out = redis.call('ZREM', prefix .. ':failed:' .. queue, id)
    leave_dead(ours, queue, id)
  elseif queue then
    out = redis.call('ZREM', prefix .. ':scheduled:' .. queue, id) + redis.call('LREM', prefix .. ':queue:' .. queue, 1, id)
      + leave_group(prefix, ours, queue, id)
  end
  if out > 0 then
    if batch then member_dead(prefix, ours, batch, id) end  -- it can never be done
    delete_job(prefix, id)
    done[#done + 1] = id
  end
end
return done
