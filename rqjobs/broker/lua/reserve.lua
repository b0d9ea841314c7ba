-- Claims jobs: takes them out of their lanes and marks them running, as RQ 3 does, in one step. A worker that is killed
-- at any instant leaves each job either waiting or in the registry of running jobs with a lease.
-- ARGV: RQ's prefix, our prefix, worker, lease (s), now (RQ's format), 24 hex digits that start every execution's id,
--   '1' = write RQ's record of each execution now ('' = the worker does, by renew.lua, for jobs that run for long;
--   'park' = likewise, and deliveries whose destination's breaker is open are parked at once: destination.lua),
--   after how many dead workers a job is dead,
--   number of queues, for each: name, how many jobs at most, rate (jobs/s, '' = none), burst, flags: 'r' = the worker
--     writes which of the jobs that a worker has died under run (running.lua), 'p' = its jobs may be parked; slots of a
--     group ('' = any number), rate of a group, its burst, how long a job has its slot ('run' or 'job': finish.lua)
--   then the lanes in the order of claiming: name, which of the queues (from 1)
-- Returns {seconds until a rate limit frees, of a queue or a group (-1 = none holds anything back), jobs parked,
--   1 if the answer has as many bytes as one may have, or if a list has jobs that have yet to join their groups: there
--   may be more jobs, in any of the lanes,
--   seconds until the next trial of a held queue (-1 = none is held), job, job, ...}
--   A job is {id, execution, lane (from 1),
--    kind ('1' = RQ compatibility path, '2' = a worker has died under it, '3' = it is too large to be sent: without fields),
--    data, timeout, retries_left, retry_intervals, created_at, result_ttl, failure_ttl, enqueued_at,
--    and of a trial, a signed job or a member of a batch: the stage of a trial that found the dependency away (holds.lua),
--    the signature, the batch}
-- A lane with a key of another type is left alone (broken_keys.lua).
local redis, ARGV = redis, ARGV  -- a local is found sooner than a global
local prefix, ours, worker, lease, iso, seed = ARGV[1], ARGV[2], ARGV[3], tonumber(ARGV[4]), ARGV[5], ARGV[6]
local records, parks, max_deaths, queue_count = ARGV[7] == '1', ARGV[7] == 'park', tonumber(ARGV[8]), tonumber(ARGV[9])
local FIRST_QUEUE, QUEUE, LANE = 10, 9, 2  -- the first argument of a queue; the number of a queue's, of a lane's
local MAX_BYTES, MAX_JOB_BYTES = 4194304, 33554432  -- of the jobs in one answer (a larger one comes alone), and of one job
local MAX_PARKED = 200  -- jobs parked by one call
local answer, bytes, full = {'-1', 0, 0, '-1'}, 0, false
if redis.call('EXISTS', prefix .. ':suspended') == 1 then return answer end
local paused = {}
for _, name in ipairs(try('SMEMBERS', ours .. ':paused') or {}) do paused[name] = true end
local with_groups = {}  -- lanes
for _, name in ipairs(try('SMEMBERS', ours .. ':groups:lanes') or {}) do with_groups[name] = true end

local time = redis.call('TIME')
local now = tonumber(time[1]) + tonumber(time[2]) / 1000000
local stamp, leased, ttl = string.format('%.6f', now), tonumber(time[1]) + lease, lease + 60
local executions, claimed, parked = prefix .. ':worker:' .. worker .. ':executions', 0, 0
local holds, trial_wait = open_holds(ours), -1

-- A queue that waits for a dependency: one job of it is claimed when a trial is due, and none otherwise.
local function hold_back(queue, hold)
  local wait = until_trial(prefix, hold, now)
  if wait > 0 then
    queue.left, queue.wanted, trial_wait = 0, 0, trial_wait < 0 and wait or math.min(trial_wait, wait)
  else
    queue.left, queue.trial = math.min(queue.left, 1), hold
  end
end

local function read_queue(at)
  local name, count, rate, burst, flags = ARGV[at], tonumber(ARGV[at + 1]), ARGV[at + 2], ARGV[at + 3], ARGV[at + 4]
  local queue = {name = name, left = count, claimed = 0, groups = read_limits(at + 5)}
  if flags ~= '' then
    queue.parks = parks and string.find(flags, 'p', 1, true)
    queue.running = string.find(flags, 'r', 1, true) and ours .. ':running:' .. name .. ':' .. worker
  end
  if rate ~= '' then  -- a token bucket, refilled since it was last used
    queue.rate, queue.burst, queue.bucket = tonumber(rate), tonumber(burst), ours .. ':rate:' .. name
    local bucket = try('HMGET', queue.bucket, 'tokens', 'at') or {}
    local tokens, since = tonumber(bucket[1] or ''), tonumber(bucket[2] or '')
    queue.tokens = queue.burst
    if tokens and since and tokens >= 0 then
      queue.tokens = math.min(queue.burst, tokens + math.max(0, now - since) * queue.rate)
    end
    queue.wanted, queue.left = queue.left, math.min(queue.left, math.floor(queue.tokens + 1e-6))
  end
  if paused[name] then queue.left, queue.wanted = 0, 0 end
  if not holds or queue.left <= 0 then return queue end
  for _, hold in pairs(holds) do
    if hold.queue == name and now > hold.next + FORGOTTEN then
      hold.closed = true
    elseif hold.queue == name and hold.scope == '' then
      hold_back(queue, hold)
    elseif hold.queue == name then
      queue.scoped = true
    end
  end
  return queue
end

local queues, first_lane = {}, FIRST_QUEUE + QUEUE * queue_count
for number = 1, queue_count do queues[number] = read_queue(FIRST_QUEUE + QUEUE * (number - 1)) end

local function lane_at(at) return ARGV[at], queues[tonumber(ARGV[at + 1])] end
local function has_jobs(name) return with_groups[name] or redis.call('EXISTS', prefix .. ':queue:' .. name) == 1 end

-- The lane of a trial: the next one after that of the last trial that has jobs, so that no lane waits for another's.
local function choose_trial_lane(queue)
  local first, passed = nil, false
  for at = first_lane, #ARGV, LANE do
    local name, its_queue = lane_at(at)
    if its_queue == queue then
      if has_jobs(name) and not broken_key(prefix, name) then
        if passed then return name end
        first = first or name
      end
      passed = passed or name == queue.trial.lane
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

-- Until when a job must wait for its scope's dependency; nil if it need not. Then the hold whose trial it is, or nil.
local function check_scope(id, key, lane)
  local name = redis.call('HGET', key, 'needs')
  local hold = name and holds[name]
  if not hold or hold.closed or hold.scope == '' then return nil, nil end
  if until_trial(prefix, hold, now) <= 0 then
    try('SREM', held_jobs(ours, name), lane .. ' ' .. id)
    return nil, hold
  end
  return keep_for(prefix, ours, hold, lane, id, now), nil
end

-- The fields of a job, or an error. A job that was only enqueued has the first ones alone. To search its hash for all the
-- others would be a twelfth of this script's time. A job whose group has its turn has ``of_group`` more fields.
local function read_job(key, of_group)
  local job = redis.pcall('HMGET', key, 'data', 'timeout', 'retries_left', 'retry_intervals', 'created_at', 'status',
    'origin', 'description', 'destination')
  if job.err or not job[1] then return job end
  local found = 0
  for i = 1, 9 do
    if job[i] then found = found + 1 end
  end
  for i = 6, 9 do job[i] = false end
  local fields = redis.call('HLEN', key) - of_group
  if fields > found then
    job[21] = redis.call('HGET', key, 'batch')
    if job[21] then found = found + 1 end
  end
  if fields > found then
    local others = redis.call('HMGET', key, 'result_ttl', 'failure_ttl', 'success_callback_name', 'failure_callback_name',
      'stopped_callback_name', 'repeats_left', 'rate_limit_key', 'group_id', 'dependency_ids',
      'enqueue_at_front_on_retry', 'worker_died', 'ttl', 'ended_at', 'enqueued_at', 'signature', 'batch', 'group')
    for i, value in ipairs(others) do job[5 + i] = value end
  end
  return job
end

-- What is to be known of a job before it runs: its kind (see above), and the bytes that it adds to the answer.
local function classify(queue, key, job, size, large)
  local kind = ''
  for i = 8, 15 do
    if job[i] and job[i] ~= '' then kind = '1' end
  end
  if job[16] and kind == '' then
    local died, left = tonumber(job[16]) or 0, tonumber(job[3] or '') or 0
    local alone = left <= 0 or died + 1 >= max_deaths or redis.call('HEXISTS', key, 'suspect') == 1
    if died > 0 and alone then kind = '2' end
    if queue.running then redis.call('SET', queue.running, '', 'NX', 'EX', 86400) end  -- none until the worker writes it
  end
  if job[17] or job[7] or (job[18] and job[18] ~= '') then redis.call('PERSIST', key) end
  if large or size > MAX_JOB_BYTES then
    kind, size = '3', 0
    for i = 1, 7 do job[i] = '' end
  end
  return kind, size
end

-- Marks a job running, and adds it to the answer. Returns its member of the registry.
local function claim(id, key, lane, job, kind, trial)
  claimed = claimed + 1
  local execution = seed .. string.format('%08x', claimed)
  local member = id .. ':' .. execution
  redis.call('HSET', key, 'status', 'started', 'started_at', iso, 'last_heartbeat', iso, 'worker_name', worker)
  if records or kind == '1' then
    local record, index = prefix .. ':execution:' .. member, prefix .. ':executions:' .. id
    redis.call('HSET', record, 'id', execution, 'job_id', id, 'created_at', stamp, 'last_heartbeat', stamp,
      'worker_name', worker)
    redis.call('EXPIRE', record, ttl)
    try('ZADD', index, leased + 60, execution)
    redis.call('EXPIRE', index, ttl)
  end
  local row = {id, execution, lane, kind, job[1], job[2] or '', job[3] or '', job[4] or '', job[5] or '', job[6] or '',
    job[7] or '', job[19] or ''}
  if trial or job[20] or job[21] then
    row[13], row[14], row[15] = trial and trial.stage or '', job[20] or '', job[21] or ''
  end
  answer[4 + claimed] = row  -- after the four of the head
  return member
end

local joined, list_is_long, pause_ends = 0, false, math.huge

local open = parks and open_destinations(ours, now) or {}

-- The next jobs of a lane, and their groups if it is their turn. Of a lane with groups the first half of what is wanted is
-- taken by turns, then the list is, and by turns what that has left over; ``source`` is where they come from.
local function next_jobs(source, name, list, queue)
  local wanted = queue.left
  if source.turns > 0 or source.list_is_empty then
    if not source.list_is_empty then wanted = source.turns end
    source.turns = 0
    local ids, groups = take_turns(ours, queue.name, name, queue.groups, wanted, now)
    source.is_empty = source.list_is_empty and #ids < wanted
    return ids, groups
  end
  local ids
  if queue.trial then ids = pop_for_trial(list, queue.trial) else ids = redis.pcall('LPOP', list, wanted) end
  ids = ids or {}
  source.list_is_empty = #ids < wanted
  source.is_empty = source.list_is_empty and not with_groups[name]
  return ids
end

-- Puts back what does not fit into the answer.
local function put_back(name, list, queue, ids, groups, first)
  for place = #ids, first, -1 do
    if groups then
      give_back(prefix, ours, queue.name, name, groups[place], ids[place])
    else
      redis.call('LPUSH', list, ids[place])
    end
  end
end

-- Claims the jobs of a lane. Returns nil, or the error of a Redis that is a replica now.
local function claim_from(lane, name, list, queue)
  local leases, members, slots = {}, {}, {}
  local may_park = queue.parks and not queue.trial and next(open)
  local source = {turns = 0, list_is_empty = false, is_empty = false}
  if with_groups[name] then
    open_groups(ours, queue, name, now)
    source.turns = math.floor((queue.left + tonumber(time[2]) % 2) / 2)  -- of one job: every second time
  end
  while not full and not source.is_empty and queue.left > 0 and parked < MAX_PARKED do
    local ids, groups = next_jobs(source, name, list, queue)
    if ids.err then return redis.error_reply(ids.err) end
    for place, id in ipairs(ids) do
      local key = prefix .. ':job:' .. id
      local length = redis.pcall('HSTRLEN', key, 'data')  -- first: what is read is copied twice
      local large = type(length) == 'number' and length > MAX_JOB_BYTES
      local job = large and {''} or read_job(key, groups and 2 or 0)
      local group = groups and groups[place] or not job.err and read_group(job[22])
      local size = #id
      if not job.err and job[1] then
        size = size + #job[1] + #(job[2] or '') + #(job[3] or '') + #(job[4] or '') + #(job[5] or '') + #(job[6] or '')
          + #(job[7] or '')
      end
      local joins = group and not groups and job[1] and join_from_list(ours, queue, name, key, group, id, now)
      if not joins and bytes > 0 and bytes + size > MAX_BYTES then
        put_back(name, list, queue, ids, groups, place)
        full = true
        break
      end
      if joins then
        joined, with_groups[name] = joined + 1, true
        source.is_empty = false
      elseif not job.err and job[1] then  -- a job whose hash has expired or was deleted is gone
        local kind
        kind, size = classify(queue, key, job, size, large)
        local slot = may_park and kind == '' and parked_until(open, now, id, key, job[19])
        local trial = queue.trial
        if queue.scoped and not slot then
          local wait, of_scope = check_scope(id, key, name)
          slot, trial = wait, trial or of_scope
        end
        if slot then
          slots[#slots + 1], slots[#slots + 2], parked = slot, id, parked + 1
          redis.call('HSET', key, 'status', 'scheduled')
          if group and not queue.groups.strict then free_slot(ours, queue.name, group, id) end
        else
          local member = claim(id, key, lane, job, kind, trial)
          local number = #members + 1
          leases[2 * number - 1], leases[2 * number], members[number] = leased, member, member
          bytes = bytes + size
          queue.left, queue.claimed = queue.left - 1, queue.claimed + 1
          if trial then start_trial(trial, id, name, member, now) end
        end
      else
        if groups then free_slot(ours, queue.name, group, id) end
        if not job.err then redis.call('DEL', key) end  -- what a worker wrote of a job whose hash was deleted while it ran
      end
    end
    if joined >= MAX_JOINED then source.list_is_empty, list_is_long = true, true end
  end
  if #members > 0 then
    redis.call('ZADD', prefix .. ':wip:' .. name, unpack(leases))
    redis.call('SADD', executions, unpack(members))
  end
  if #slots > 0 then redis.call('ZADD', prefix .. ':scheduled:' .. name, unpack(slots)) end
  if with_groups[name] then pause_ends = math.min(pause_ends, close_groups(ours, name, now)) end
  return nil
end

for _, queue in ipairs(queues) do
  if queue.trial then queue.trial_lane = choose_trial_lane(queue) end
end
for at = first_lane, #ARGV, LANE do
  local name, queue = lane_at(at)
  local list, is_next = prefix .. ':queue:' .. name, not queue.trial or name == queue.trial_lane
  if queue.left > 0 and is_next and has_jobs(name) and not broken_key(prefix, name) then
    local failed = claim_from((at - first_lane) / LANE + 1, name, list, queue)
    if failed then return failed end
  end
  if queue.rate and queue.left == 0 and queue.wanted > queue.claimed and has_jobs(name) then
    queue.limited = true
  end
end
if claimed > 0 then redis.call('EXPIRE', executions, ttl + 60) end
save_destinations(open, now)
if holds then save_holds(ours, holds) end

local rate_wait = pause_ends < math.huge and pause_ends or -1
for _, queue in ipairs(queues) do
  if queue.rate and queue.claimed > 0 then
    queue.tokens = queue.tokens - queue.claimed
    if not try('HSET', queue.bucket, 'tokens', string.format('%.6f', queue.tokens), 'at', stamp) then
      redis.call('DEL', queue.bucket)  -- of another type
    end
    redis.call('EXPIRE', queue.bucket, math.ceil(queue.burst / queue.rate) + 60)
  end
  if queue.limited then
    local free = math.max(0, 1 - queue.tokens) / queue.rate
    rate_wait = rate_wait < 0 and free or math.min(rate_wait, free)
  end
end
answer[1], answer[2], answer[3] = string.format('%.6f', rate_wait), parked, (full or list_is_long) and 1 or 0
answer[4] = string.format('%.6f', trial_wait)
return answer
