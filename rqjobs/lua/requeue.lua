-- Puts dead jobs back into their queues with all their attempts.
-- ARGV: RQ's prefix, now (RQ's timestamp), then for each job: id, queue, retries ('' = none of ours).
-- Answers the ids that were put back; one that is not dead any more is left alone.
local prefix, now, done = ARGV[1], ARGV[2], {}
for i = 3, #ARGV, 3 do
  local id, queue, retries = ARGV[i], ARGV[i + 1], ARGV[i + 2]
  local key = prefix .. ':job:' .. id
  if redis.call('ZREM', prefix .. ':failed:' .. queue, id) == 1 and redis.call('EXISTS', key) == 1 then
    redis.call('HSET', key, 'status', 'queued', 'enqueued_at', now, 'started_at', '', 'ended_at', '')
    if retries ~= '' then redis.call('HSET', key, 'retries_left', retries) end
    redis.call('HDEL', key, 'worker_died')
    redis.call('PERSIST', key)
    redis.call('PERSIST', prefix .. ':results:' .. id)
    redis.call('SADD', prefix .. ':queues', prefix .. ':queue:' .. queue)
    redis.call('RPUSH', prefix .. ':queue:' .. queue, id)
    done[#done + 1] = id
  end
end
return done
