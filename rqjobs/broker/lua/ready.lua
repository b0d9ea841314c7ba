-- Moves a job of the ready registry to its queue, as RQ 3 does, if it is still ready. Returns true after it is removed from
-- the registry, false for a job with RQ's rate limit, which RQ's own methods enqueue, nil if its lane is out of use.
local function enqueue_ready(prefix, iso, timeout, lane, id)
  local key, registry = prefix .. ':job:' .. id, prefix .. ':ready:' .. lane
  local job = try('HMGET', key, 'status', 'rate_limit_key', 'enqueue_at_front', 'enqueue_at_front_on_retry',
    'ended_at', 'ttl', 'timeout')
  if job and job[1] == 'ready_to_enqueue' then
    if job[2] and job[2] ~= '' then return false end
    local list = prefix .. ':queue:' .. lane
    if broken_key(prefix, lane) then return nil end
    redis.call('HSET', key, 'status', 'queued', 'enqueued_at', iso, 'origin', lane)
    if not job[7] or job[7] == '' then redis.call('HSET', key, 'timeout', timeout) end
    local ttl = tonumber(job[6] or '')
    if ttl then
      for _, each in ipairs({key, key .. ':dependents', prefix .. ':job::' .. id .. ':dependencies'}) do
        redis.call('EXPIRE', each, math.floor(ttl))
      end
    end
    local first = job[3] == '1' or (job[4] == '1' and job[5] and job[5] ~= '')
    redis.call(first and 'LPUSH' or 'RPUSH', list, id)
    try('SADD', prefix .. ':queues', list)
  end
  redis.call('ZREM', registry, id)  -- last, so that an error before it does not lose the job
  return true
end

