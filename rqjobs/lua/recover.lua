-- Takes back the jobs of workers that died: their leases have run out, or the caller knows that the worker is dead.
-- ARGV: RQ's prefix, our prefix, now (RQ's format), failed jobs kept, after how many dead workers a job is dead,
--   three errors (base64 of zlib): tried again, attempts used up, too many workers died
--   a dead worker's name ('' = whoever let a lease run out), number of lanes, for each: name, its queue
-- Answers {lanes with jobs left for RQ's own path, {id, worker, 'queued' or 'failed'}, ...}
local prefix, ours, iso, keep, most, dead = ARGV[1], ARGV[2], ARGV[3], tonumber(ARGV[4]), tonumber(ARGV[5]), ARGV[9]
local time = redis.call('TIME')
local seconds, stamp = tonumber(time[1]), string.format('%d.%06d', time[1], time[2])
local special, answer = {}, {{}}
for n = 1, tonumber(ARGV[10]) do
  local name, queue = ARGV[9 + 2 * n], ARGV[10 + 2 * n]
  local registry = prefix .. ':wip:' .. name
  local members
  if dead == '' then
    members = redis.call('ZRANGEBYSCORE', registry, 0, seconds, 'LIMIT', 0, 500)
  else
    members = {}
    for _, member in ipairs(redis.call('SMEMBERS', prefix .. ':worker:' .. dead .. ':executions')) do
      if redis.call('ZSCORE', registry, member) then members[#members + 1] = member end
    end
  end
  for _, member in ipairs(members) do
    local id, execution = string.match(member, '^(.*):([^:]*)$')
    local key = prefix .. ':job:' .. (id or '')
    local job = redis.pcall('HMGET', key, 'status', 'retries_left', 'retry_intervals', 'worker_died', 'worker_name',
      'started_at', 'success_callback_name', 'failure_callback_name', 'stopped_callback_name', 'repeats_left',
      'rate_limit_key', 'group_id', 'webhooks', 'enqueue_at_front_on_retry', 'dependency_ids')
    if job.err then job = {} end
    local left_alone = redis.call('EXISTS', key .. ':dependents') == 1
    for i = 7, 15 do
      if job[i] and job[i] ~= '' then left_alone = true end
    end
    if job[1] == 'started' and left_alone then
      special[name] = true
    else
      redis.call('ZREM', registry, member)
      redis.call('DEL', prefix .. ':execution:' .. member)
      if id then redis.call('ZREM', prefix .. ':executions:' .. id, execution) end
      if job[1] == 'started' then
        local worker, left = job[5] or '', tonumber(job[2] or '') or 0
        redis.call('SREM', prefix .. ':worker:' .. worker .. ':executions', member)
        local intervals = job[3] and select(2, pcall(cjson.decode, job[3]))
        local attempt = math.max(1, (type(intervals) == 'table' and #intervals or 0) + 1 - left)
        local died = tonumber(job[4] or '0') + 1
        local again = left > 0 and died < most
        local why = again and ARGV[6] or (left > 0 and ARGV[8] or ARGV[7])
        redis.call('XADD', prefix .. ':results:' .. id, 'MAXLEN', '~', 100, '*', 'type', again and 4 or 2, 'worker_name',
          worker, 'exc_string', why, 'execution_id', execution, 'execution_ended_at', stamp, 'attempt', attempt)
        redis.call('HSET', key, 'worker_died', died, 'ended_at', iso)
        if again then
          redis.call('HSET', key, 'status', 'queued', 'enqueued_at', iso, 'retries_left', left - 1)
          redis.call('LPUSH', prefix .. ':queue:' .. name, id)
          redis.call('SADD', prefix .. ':queues', prefix .. ':queue:' .. name)
          redis.call('HINCRBY', ours .. ':totals:' .. queue, 'retried', 1)
        else
          redis.call('HSET', key, 'status', 'failed')
          redis.call('EXPIRE', key, 31536000)
          redis.call('ZADD', prefix .. ':failed:' .. name, seconds + 31536000, id)
          redis.call('HINCRBY', ours .. ':totals:' .. queue, 'failed', 1)
          local over = redis.call('ZCARD', prefix .. ':failed:' .. name) - keep
          if over > 0 then
            for _, old in ipairs(redis.call('ZRANGE', prefix .. ':failed:' .. name, 0, over - 1)) do
              redis.call('DEL', prefix .. ':job:' .. old, prefix .. ':results:' .. old)
              redis.call('ZREM', prefix .. ':failed:' .. name, old)
            end
          end
        end
        answer[#answer + 1] = {id, worker, again and 'queued' or 'failed'}
      end
    end
  end
end
for name in pairs(special) do answer[1][#answer[1] + 1] = name end
return answer
