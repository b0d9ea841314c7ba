-- Rescues the jobs of dead workers: those with expired leases, or those of a worker that the caller names as dead.
-- ARGV: RQ's prefix, our prefix, now (RQ's format), failed jobs kept, after how many dead workers a job is dead,
--   three errors (base64 of zlib): tried again, attempts used up, too many workers died
--   a dead worker's name ('' = all expired leases), most jobs of a lane, number of lanes, for each: name, its queue, how
--   long a job has the slot of its group (finish.lua)
-- Returns {{lane, id, execution} of jobs for the RQ compatibility path: the caller has 30 s to rescue them, or with a dead
--   worker's name the next rescuer; {keys of the wrong type}; {id, worker, 'queued' or 'failed'}, ...}
local prefix, ours, iso, keep, most = ARGV[1], ARGV[2], ARGV[3], tonumber(ARGV[4]), tonumber(ARGV[5])
local TRIED_AGAIN, USED_UP, TOO_MANY_DIED = ARGV[6], ARGV[7], ARGV[8]
local dead, page, lane_count, first_lane = ARGV[9], tonumber(ARGV[10]), tonumber(ARGV[11]), 12
local time = redis.call('TIME')
local seconds, stamp, year = tonumber(time[1]), string.format('%d.%06d', time[1], time[2]), 31536000
local minute = ours .. ':minute:' .. string.format('%d', math.floor(seconds / 60))
local STALE = 100  -- slots of groups that a call checks
local SUSPECTS = 32  -- more of one worker are not run in processes of their own: they would wait for each other
local response = {{}, {}}
redis.call('DEL', prefix .. ':wip')  -- this key never exists: a write that a full Redis allows, and then the others too

-- Returns whether Redis has just started, so that workers need time to renew their leases.
local function just_started()
  local info = try('INFO', 'server')
  local uptime = info and tonumber(string.match(info, 'uptime_in_seconds:(%d+)') or '')
  return uptime and uptime < 5
end

local known = {}

-- Returns what a dead worker ran, and why it died, if its watcher has recorded it (rqjobs/worker/takeover.py).
--   few: so few that each runs alone the next time; spared: all but one are honest, so none is charged an attempt.
local function what_ran(worker)
  if known[worker] == nil then
    local found = try('HMGET', ours .. ':ran:' .. worker, 'executions', 'why', 'spared')
    if found and found[1] then
      local few = #found[1] < 33 * SUSPECTS
      known[worker] = {executions = found[1], why = found[2], few = few, spared = few and found[3] == '1'}
    else  -- the machine is gone, or the lease is shorter than the watcher needs: each of its jobs may have run
      local count = try('SCARD', prefix .. ':worker:' .. worker .. ':executions')
      known[worker] = {few = count and count <= SUSPECTS}
    end
  end
  return known[worker]
end

local function rescue(name, queue, member, slot)
  local registry, failed = prefix .. ':wip:' .. name, prefix .. ':failed:' .. name
  local id, execution = string.match(member, '^(.*):([^:]*)$')
  local key = prefix .. ':job:' .. (id or '')
  local job = try('HMGET', key, 'status', 'retries_left', 'retry_intervals', 'worker_died', 'worker_name',
    'started_at', 'success_callback_name', 'failure_callback_name', 'stopped_callback_name', 'repeats_left',
    'rate_limit_key', 'group_id', 'enqueue_at_front_on_retry', 'dependency_ids')
  if not job or not id or string.find(id, '[\128-\255]') then job = {} end  -- not an id that RQ makes
  local ran = job[1] == 'started' and what_ran(job[5] or '')
  local waited = ran and ran.executions and not string.find(ran.executions, execution, 1, true)
  if job[1] == 'started' and not waited then
    local rq_compat = redis.call('EXISTS', key .. ':dependents') == 1
    for i = 7, 14 do
      if job[i] and job[i] ~= '' then rq_compat = true end
    end
    if rq_compat then
      redis.call('ZADD', registry, seconds + (dead == '' and 30 or 0), member)
      if dead == '' then
        response[1][#response[1] + 1] = {name, id, execution}
      else
        redis.call('SREM', prefix .. ':worker:' .. dead .. ':executions', member)
      end
      return
    end
  end
  local again = false
  redis.call('DEL', prefix .. ':execution:' .. member)
  if id then try('ZREM', prefix .. ':executions:' .. id, execution) end
  if job[1] == 'started' then
    local worker, left = job[5] or '', tonumber(job[2] or '') or 0
    redis.call('SREM', prefix .. ':worker:' .. worker .. ':executions', member)
    local attempt = math.max(1, #(decode_table(job[3] or '') or {}) + 1 - left)
    local died = tonumber(job[4] or '') or 0
    died = (died > 0 and died or 0) + 1  -- any client may have written it
    local running = died > 1 and try('GET', ours .. ':running:' .. queue .. ':' .. worker)
    waited = waited or running and not string.find(running, execution, 1, true)
    local free = waited or ran.spared  -- costs no attempt
    again = waited or (left > 0 or free) and died < most
    local why = died >= most and TOO_MANY_DIED or ran and ran.why or again and TRIED_AGAIN or USED_UP
    local results = prefix .. ':results:' .. id
    local totals = ours .. ':totals:' .. queue
    if not waited then
      if not has_type(results, 'stream') then redis.call('DEL', results) end
      redis.call('XADD', results, 'MAXLEN', '~', 100, '*', 'type', again and 4 or 2, 'worker_name', worker,
        'exc_string', why, 'execution_id', execution, 'execution_ended_at', stamp, 'attempt', attempt)
      redis.call('HSET', key, 'worker_died', died, 'ended_at', iso)
      if ran.few then redis.call('HSET', key, 'suspect', 1) end
    end
    if again then
      redis.call('HSET', key, 'status', 'queued', 'enqueued_at', iso, 'retries_left', free and left or left - 1)
      redis.call('LPUSH', prefix .. ':queue:' .. name, id)
      try('SADD', prefix .. ':queues', prefix .. ':queue:' .. name)
      if not free then try('HINCRBY', totals, 'retried', 1) end
    else
      redis.call('HSET', key, 'status', 'failed')
      local batch = redis.call('HGET', key, 'batch')
      if batch then member_dead(prefix, ours, batch, id) end
      redis.call('EXPIRE', key, year)
      redis.call('ZADD', failed, seconds + year, id)
      leave_dead(ours, name, id)  -- the entry of an earlier death; that of this one is made later
      try('HINCRBY', totals, 'failed', 1)
      for _, figures in ipairs({ours .. ':metrics', minute}) do try('HINCRBY', figures, queue .. '/dead', 1) end
      redis.call('EXPIRE', minute, 3900)
      local over = redis.call('ZCARD', failed) - keep
      if over > 0 then
        for _, old in ipairs(redis.call('ZRANGE', failed, 0, over - 1)) do
          delete_job(prefix, old)
          redis.call('ZREM', failed, old)
          leave_dead(ours, name, old)
        end
        try('HINCRBY', totals, 'dropped', over)
      end
    end
    response[#response + 1] = {id, worker, again and 'queued' or 'failed'}
  end
  local group = id and not (again and slot == 'job') and group_of(prefix, id)
  if group then pcall(free_slot, ours, queue, group, id) end
  redis.call('ZREM', registry, member)  -- last, so that an error before it does not lose the job
end

-- Frees slots of groups whose jobs do not run any more, and were ended by others than our scripts: deleted by RQ's
-- commands, or expired. Some of them in each call, at random.
local function free_stale_slots(queue, slot)
  for _, member in ipairs(redis.call('ZRANDMEMBER', group_key(ours, 'slots', queue), STALE)) do
    local group, id = string.match(member, '^([^\n]*)\n(.*)$')
    local status = try('HGET', prefix .. ':job:' .. id, 'status')
    local runs = status == 'started' or status == 'queued' or status == 'scheduled' and slot == 'job'
    if not runs then free_slot(ours, queue, group, id) end
  end
end

if not has_type(ours .. ':paused', 'set') then response[2][1] = ours .. ':paused' end
for n = 0, lane_count - 1 do
  local at = first_lane + 3 * n
  local name, queue, slot = ARGV[at], ARGV[at + 1], ARGV[at + 2]
  local registry, broken = prefix .. ':wip:' .. name, broken_key(prefix, name)
  local members = {}
  if broken then
    response[2][#response[2] + 1] = broken
  elseif dead == '' then
    members = redis.call('ZRANGEBYSCORE', registry, 0, seconds, 'LIMIT', 0, page)
    if #members > 0 and just_started() then members = {} end
  else
    for _, member in ipairs(redis.call('SMEMBERS', prefix .. ':worker:' .. dead .. ':executions')) do
      if #members < page and redis.call('ZSCORE', registry, member) then members[#members + 1] = member end
    end
  end
  for _, member in ipairs(members) do rescue(name, queue, member, slot) end
  if dead == '' and name == queue then pcall(free_stale_slots, queue, slot) end
end
return response
