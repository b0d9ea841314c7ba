-- Takes jobs out of their queues and marks them started, as RQ 3 does, in one step: a worker killed at
-- any instant leaves each job either waiting or in the started registry with a lease.
-- ARGV: RQ's prefix, our prefix, worker, lease (s), now (RQ's format), 24 hex digits that start every execution's id,
--   '1' = write RQ's record of each execution now ('' = the worker does, by renew.lua, for jobs that run for long;
--   'park' = likewise, and webhooks whose destination's breaker is open are parked at once: parking.lua),
--   after how many dead workers a job is dead,
--   number of queues, for each: name, how many jobs at most, rate (jobs/s, '' = none), burst, '1' = the worker tells
--     which of the jobs that a worker has died under run (running.lua)
--   then the lanes in the order of taking: name, which of the queues (from 1)
-- Answers {seconds until a rate limit frees (-1 = none holds anything back), jobs parked,
--   1 if the answer has as many bytes as one may have: there may be more jobs, in any of the lanes,
--   seconds until the next trial of a held queue (-1 = none is held), job, job, ...}
--   A job is {id, execution, lane (from 1),
--    special ('1' = RQ's own path, '2' = a worker has died under it, '3' = it is too large to be sent: without fields),
--    data, timeout, retries_left, retry_intervals, created_at, result_ttl, failure_ttl, enqueued_at,
--    and of a trial or a signed job: the stage of a trial that found the dependency away (holds.lua), the signature}
local prefix, ours, worker, lease, iso, seed = ARGV[1], ARGV[2], ARGV[3], tonumber(ARGV[4]), ARGV[5], ARGV[6]
local records, most = ARGV[7] == '1', tonumber(ARGV[8])
local MOST_BYTES, LARGEST = 4194304, 33554432  -- of the jobs in one answer (a larger one comes alone), and of one job
local answer, bytes, full = {'-1', 0, 0, '-1'}, 0, false
if redis.call('EXISTS', prefix .. ':suspended') == 1 then return answer end
local paused = {}
local names = redis.pcall('SMEMBERS', ours .. ':paused')  -- a key of another type pauses nothing; the keeper tells
for _, name in ipairs(names.err and {} or names) do paused[name] = true end

local time = redis.call('TIME')
local now = tonumber(time[1]) + tonumber(time[2]) / 1000000
local stamp, leased, ttl = string.format('%.6f', now), tonumber(time[1]) + lease, lease + 60
local executions, taken = prefix .. ':worker:' .. worker .. ':executions', 0

local holds, look = open_holds(ours), -1

-- A queue that waits for a dependency: one job of it is taken when a trial is due, and none otherwise.
local function hold_back(queue, hold)
  local wait = until_trial(prefix, hold, now)
  if wait > 0 then
    queue.budget, queue.wanted, look = 0, 0, look < 0 and wait or math.min(look, wait)
  else
    queue.budget, queue.trial = math.min(queue.budget, 1), hold
  end
end

local queues, at = {}, 10
for i = 1, tonumber(ARGV[9]) do
  local queue = {name = ARGV[at], budget = tonumber(ARGV[at + 1]), taken = 0}
  if ARGV[at + 2] ~= '' then  -- a token bucket, refilled since it was last used
    queue.rate, queue.burst, queue.bucket = tonumber(ARGV[at + 2]), tonumber(ARGV[at + 3]), ours .. ':rate:' .. queue.name
    local was = redis.pcall('HMGET', queue.bucket, 'tokens', 'at')
    local tokens, since = tonumber(was[1] or ''), tonumber(was[2] or '')
    queue.tokens = queue.burst
    if tokens and since and tokens >= 0 then
      queue.tokens = math.min(queue.burst, tokens + math.max(0, now - since) * queue.rate)
    end
    queue.wanted, queue.budget = queue.budget, math.min(queue.budget, math.floor(queue.tokens + 1e-6))
  end
  if paused[queue.name] then queue.budget, queue.wanted = 0, 0 end
  if holds and queue.budget > 0 then
    for _, hold in pairs(holds) do
      if hold.queue == queue.name and now > hold.next + FORGOTTEN then
        hold.closed = true
      elseif hold.queue == queue.name and hold.scope == '' then
        hold_back(queue, hold)
      elseif hold.queue == queue.name then
        queue.scoped = true
      end
    end
  end
  if ARGV[at + 4] == '1' then queue.running = ours .. ':running:' .. queue.name .. ':' .. worker end
  queues[i] = queue
  at = at + 5
end

-- The lane of a trial: the next one after that of the last trial that has jobs, so that no lane waits for another's.
local function choose_trial_lane(queue, number)
  local first, passed = nil, false
  for i = at, #ARGV, 2 do
    if tonumber(ARGV[i + 1]) == number then
      if redis.call('EXISTS', prefix .. ':queue:' .. ARGV[i]) == 1 then
        if passed then return ARGV[i] end
        first = first or ARGV[i]
      end
      passed = passed or ARGV[i] == queue.trial.lane
    end
  end
  return first
end

-- The job of a trial: another one than that which found the dependency away last, if there is another.
local function pop_for_trial(list, hold)
  local ids = redis.pcall('LPOP', list, 2)
  if not ids or ids.err or not ids[2] then return ids end
  local other = ids[1] == hold.last and 1 or 2
  redis.call('LPUSH', list, ids[other])
  return {ids[3 - other]}
end

-- Until when a job must wait for its scope's dependency; nil if it need not. It may be the trial.
local function scope_of(id, lane)
  local name = redis.pcall('HGET', prefix .. ':job:' .. id, 'needs')
  local hold = type(name) == 'string' and holds[name]
  if not hold or hold.closed or hold.scope == '' then return nil, nil end
  if until_trial(prefix, hold, now) <= 0 then
    redis.call('SREM', held_jobs(ours, name), lane .. ' ' .. id)
    return nil, hold
  end
  return keep_for(prefix, ours, hold, lane, id, now), nil
end

for number, queue in ipairs(queues) do
  if queue.trial then queue.trial_lane = choose_trial_lane(queue, number) end
end
local parked, dead = 0, ARGV[7] == 'park' and dead_destinations(ours, now) or {}
local lane = 0
while ARGV[at] do
  local name, queue = ARGV[at], queues[tonumber(ARGV[at + 1])]
  lane, at = lane + 1, at + 2
  local list, registry, leases, members = prefix .. ':queue:' .. name, prefix .. ':wip:' .. name, {}, {}
  -- With a registry of another type its jobs could not be marked as taken: they stay. The keeper says so.
  local sound = queue.budget > 0 and redis.call('EXISTS', list) == 1 and type(redis.pcall('ZCARD', registry)) == 'number'
  local later, slots = prefix .. ':scheduled:' .. name, {}
  if queue.trial and name ~= queue.trial_lane then sound = false end
  local scoped = sound and queue.scoped and type(redis.pcall('ZCARD', later)) == 'number'
  local parks = sound and not queue.trial and next(dead) and queue.name == 'webhooks' and type(redis.pcall('ZCARD', later)) == 'number'
  while sound and not full and queue.budget > 0 and parked < MOST_PARKED do
    local wanted = queue.budget
    local ids
    if queue.trial then ids = pop_for_trial(list, queue.trial) else ids = redis.pcall('LPOP', list, wanted) end
    if not ids then break end
    if ids.err and not string.find(ids.err, '^WRONGTYPE') then return redis.error_reply(ids.err) end  -- a replica now
    if ids.err then break end
    for place, id in ipairs(ids) do
      local key = prefix .. ':job:' .. id
      local length = redis.pcall('HSTRLEN', key, 'data')  -- first: what is read is copied twice
      local large = type(length) == 'number' and length > LARGEST
      local job = large and {''} or redis.pcall('HMGET', key, 'data', 'timeout', 'retries_left', 'retry_intervals', 'created_at',
        'result_ttl', 'failure_ttl', 'success_callback_name', 'failure_callback_name', 'stopped_callback_name',
        'repeats_left', 'rate_limit_key', 'group_id', 'dependency_ids', 'enqueue_at_front_on_retry', 'worker_died', 'ttl',
        'ended_at', 'enqueued_at', 'signature')
      local size = #id
      for i = 1, not job.err and job[1] and 7 or 0 do
        if job[i] then size = size + #job[i] end
      end
      if bytes > 0 and bytes + size > MOST_BYTES then
        for rest = #ids, place, -1 do redis.call('LPUSH', list, ids[rest]) end
        full = true
        break
      end
      if not job.err and job[1] then  -- a job whose hash has expired or was deleted is gone
        local special = ''
        for i = 8, 15 do
          if job[i] and job[i] ~= '' then special = '1' end
        end
        if job[16] and special == '' then
          local died, left = tonumber(job[16]) or 0, tonumber(job[3] or '') or 0
          local alone = left <= 0 or died + 1 >= most or redis.call('HEXISTS', key, 'suspect') == 1
          if died > 0 and alone then special = '2' end
          if queue.running then redis.call('SET', queue.running, '', 'NX', 'EX', 86400) end  -- none until it tells
        end
        if job[17] or job[7] or (job[18] and job[18] ~= '') then redis.call('PERSIST', key) end
        if large or size > LARGEST then
          special, size = '3', #id
          for i = 1, 7 do job[i] = '' end
        end
        local slot = parks and special == '' and parked_until(dead, now, id, job[1], job[5], job[19])
        local trial
        if holds then
          trial = queue.trial
          if scoped and not slot then
            local wait, tries = scope_of(id, name)
            slot, trial = wait, trial or tries
          end
        end
        if slot then
          slots[#slots + 1], slots[#slots + 2], parked = slot, id, parked + 1
          redis.call('HSET', key, 'status', 'scheduled')
        else
          taken = taken + 1
          local execution = seed .. string.format('%08x', taken)
          local member = id .. ':' .. execution
          redis.call('HSET', key, 'status', 'started', 'started_at', iso, 'last_heartbeat', iso, 'worker_name', worker)
          if records or special == '1' then
            local record, index = prefix .. ':execution:' .. member, prefix .. ':executions:' .. id
            redis.call('HSET', record, 'id', execution, 'job_id', id, 'created_at', stamp, 'last_heartbeat', stamp,
              'worker_name', worker)
            redis.call('EXPIRE', record, ttl)
            redis.pcall('ZADD', index, leased + 60, execution)  -- a key of another type must not cost the others
            redis.call('EXPIRE', index, ttl)
          end
          leases[#leases + 1], leases[#leases + 2], members[#members + 1] = leased, member, member
          bytes = bytes + size
          answer[#answer + 1] = {id, execution, lane, special, job[1], job[2] or '', job[3] or '', job[4] or '',
            job[5] or '', job[6] or '', job[7] or '', job[19] or ''}
          if trial or job[20] then
            answer[#answer][13], answer[#answer][14] = trial and trial.stage or '', job[20] or ''
          end
          if trial then
            start_trial(trial, id, name, member, now)
          end
          queue.budget, queue.taken = queue.budget - 1, queue.taken + 1
        end
      elseif not job.err then  -- what a worker wrote of a job whose hash was deleted while it ran
        redis.call('DEL', key)
      end
    end
    if #ids < wanted then break end
  end
  if #members > 0 then
    redis.call('ZADD', registry, unpack(leases))
    redis.call('SADD', executions, unpack(members))
  end
  if #slots > 0 then redis.call('ZADD', later, unpack(slots)) end
  if queue.rate and queue.budget == 0 and queue.wanted > queue.taken and redis.call('EXISTS', list) == 1 then
    queue.held = true
  end
end
if taken > 0 then redis.call('EXPIRE', executions, ttl + 60) end
save_destinations(dead, now)
if holds then save_holds(ours, holds) end

local wait = -1
for _, queue in ipairs(queues) do
  if queue.rate and queue.taken > 0 then
    queue.tokens = queue.tokens - queue.taken
    if type(redis.pcall('HSET', queue.bucket, 'tokens', string.format('%.6f', queue.tokens), 'at', stamp)) == 'table' then
      redis.call('DEL', queue.bucket)  -- of another type
    end
    redis.call('EXPIRE', queue.bucket, math.ceil(queue.burst / queue.rate) + 60)
  end
  if queue.held then
    local free = math.max(0, 1 - queue.tokens) / queue.rate
    wait = wait < 0 and free or math.min(wait, free)
  end
end
answer[1], answer[2], answer[3] = string.format('%.6f', wait), parked, full and 1 or 0
answer[4] = string.format('%.6f', look)
return answer
