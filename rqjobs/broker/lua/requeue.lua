-- Puts dead jobs back into their queues with all their attempts.
-- ARGV: RQ's prefix, our prefix, now (RQ's timestamp), then the ids.
-- Returns the ids of the requeued jobs; jobs that are not dead are not changed.
local prefix, ours, now, first_id, done = ARGV[1], ARGV[2], ARGV[3], 4, {}
for i = first_id, #ARGV do
  local id = ARGV[i]
  local key = prefix .. ':job:' .. id
  local job = try('HMGET', key, 'origin', 'retry_intervals', 'batch', 'group', 'group_place')
  local queue = job and job[1]
  local dead = queue and prefix .. ':failed:' .. queue
  if dead and redis.call('ZSCORE', dead, id) then
    local group = job[5] and read_group(job[4])
    if group then  -- at its old place: before all that were enqueued after it
      check_group_keys(ours, {'waiting', 'turns'}, queue)
      join_group(ours, queue, group, job[5], id)
    else
      redis.call('RPUSH', prefix .. ':queue:' .. queue, id)  -- raises if that key is not a list, and the job stays dead
    end
    redis.call('ZREM', dead, id)
    leave_dead(ours, queue, id)
    redis.call('HSET', key, 'status', 'queued', 'enqueued_at', now, 'started_at', '', 'ended_at', '')
    local intervals = decode_table(job[2] or '')  -- RQ counts a retry for each
    if intervals and #intervals > 0 then redis.call('HSET', key, 'retries_left', #intervals) end
    redis.call('HDEL', key, 'worker_died', 'suspect', 'blamed')
    redis.call('PERSIST', key)
    redis.call('PERSIST', prefix .. ':results:' .. id)
    try('SADD', prefix .. ':queues', prefix .. ':queue:' .. queue)
    if job[3] then member_requeued(prefix, ours, job[3], id) end
    done[#done + 1] = id
  end
end
return done
