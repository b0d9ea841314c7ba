-- Writes what became of started jobs, as RQ 3 does, in one step. A job whose lease was lost to another worker
-- is left alone: its execution is no longer in the started registry.
-- ARGV: RQ's prefix, our prefix, worker, now (RQ's format), completed jobs kept, failed jobs kept,
--   number of lanes, for each: name, its queue
--   then for each job: how, id, execution, lane (from 1), started, ended (unix s), started, ended (RQ's format), and
--     done   result (base64, '' = none), how long it is kept (s, -1 = for ever), '', '', ''
--     retry  error (base64 of zlib), seconds to wait, retries left, attempt, ''
--     dead   error, how long it is kept (s, '' = RQ's year, -1 = for ever), retries left, attempt, its entry in the
--            index of dead letters
--     stop   as dead, for a job that was told to stop
--     bury   as dead, for a job whose true outcome was refused: keys of a wrong type are deleted
--     back   '', '', '', '', ''           to the front of its queue, as if it had not been taken
--     hold   seconds to wait, '', '', '', ''  to the scheduled registry, no attempt counted
--     away   scope ('' = the whole queue), dependency, reason, stage, ''  no attempt counted: a dependency is away
--            (holds.lua). The stage is "run", "admit", or "held" for a job that has not tried it
-- Answers which of the jobs (from 0): {lost their lease, have dependents: not written, RQ's own path is to finish them,
--   were refused, each with the error after it: a key has another type than RQ's, or a number is out of range, were
--   not written because they blame a dependency that others find answering: it is their own failure}, and the fifth:
--   {what, queue, scope, dependency, reason, seconds, jobs that waited, ...} of the holds that were opened or closed
local prefix, ours, worker, iso = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
local keep_completed, keep_failed = tonumber(ARGV[5]), tonumber(ARGV[6])
local time = redis.call('TIME')
local now, seconds = tonumber(time[1]) + tonumber(time[2]) / 1000000, tonumber(time[1])
local lost, dependents, refused, charged, garbage = {}, {}, {}, {}, {}
local succeeded, failed, working = 0, 0, 0

-- Never there: a write that a full Redis allows, and then the others too. A replica, or a Redis that cannot save, says
-- so here; any later error is due to one job or lane.
redis.call('DEL', prefix .. ':wip')

local ends = {done = true, dead = true, stop = true, bury = true}  -- what lets dependents go on

local lanes, at = {}, 8
for i = 1, tonumber(ARGV[7]) do
  lanes[i] = {name = ARGV[at], queue = ARGV[at + 1], jobs = {}, members = {}, back = {}, done = 0,
    finished = {}, dead = {}, scheduled = {}, queued = {}, retried = 0, dropped = 0}
  at = at + 2
end

local first, parents, away = at, {}, false
while ARGV[at] do
  local lane, id = lanes[tonumber(ARGV[at + 3])], ARGV[at + 1]
  lane.jobs[#lane.jobs + 1] = at
  lane.members[#lane.members + 1] = id .. ':' .. ARGV[at + 2]
  if ARGV[at] == 'away' then away = true end
  if ends[ARGV[at]] then parents[#parents + 1] = prefix .. ':job:' .. id .. ':dependents' end
  at = at + 13
end
local any_dependents = #parents > 0 and redis.call('EXISTS', unpack(parents)) > 0

local holds = open_holds(ours) or away and {}

local waiters, waited = ours .. ':waiters', false
if redis.call('EXISTS', waiters) == 1 then waited = true end

local function result(kind, id, i, ...)
  redis.call('XADD', prefix .. ':results:' .. id, 'MAXLEN', '~', 100, '*', 'type', kind, 'worker_name', worker,
    'execution_id', ARGV[i + 2], 'execution_started_at', ARGV[i + 4], 'execution_ended_at', ARGV[i + 5], ...)
end

local function expire(key, ttl)
  if ttl >= 0 then redis.call('EXPIRE', key, ttl) end
end

local function trash(id)
  garbage[#garbage + 1] = prefix .. ':job:' .. id
  if waited and redis.call('ZSCORE', waiters, id) then
    redis.call('EXPIRE', prefix .. ':results:' .. id, 60)
  else
    garbage[#garbage + 1] = prefix .. ':results:' .. id
  end
end

-- A job whose dependency is away goes back unrun: to the front of its queue, behind the others if it was the trial, or
-- to the scheduled registry where it needs what the others do not.
local function write_away(lane, i, id, key)
  local scope, stage, hold, trial = ARGV[i + 8], ARGV[i + 11], nil, false
  if stage == 'held' then
    hold = holds[hold_name(lane.queue, scope)]
  else
    hold, trial = find_away(holds, lane.queue, scope, ARGV[i + 9], ARGV[i + 10], stage, id, now)
  end
  if scope ~= '' and hold and not hold.closed then
    redis.call('HSET', key, 'status', 'scheduled', 'started_at', '', 'worker_name', '')
    lane.scheduled[#lane.scheduled + 1] = keep_for(prefix, ours, hold, lane.name, id, now)
    lane.scheduled[#lane.scheduled + 1] = id
    return
  end
  redis.call('HSET', key, 'status', 'queued', 'started_at', '', 'worker_name', '')
  if trial then lane.queued[#lane.queued + 1] = id else table.insert(lane.back, 1, id) end
end

local TRIAL_ENDS = {done = 'done', back = 'back', hold = 'back', away = 'away'}  -- any other end: quiet (holds.lua)

-- A run has ended: of a trial, that is news.
local function tell_holds(lane, i)
  local how = TRIAL_ENDS[ARGV[i]] or 'quiet'
  if how ~= 'away' then end_trials(prefix, ours, holds, lane.queue, ARGV[i + 1], how, now) end
end

local function write(lane, i, surplus)
  local how, id = ARGV[i], ARGV[i + 1]
  local key = prefix .. ':job:' .. id
  local took = tonumber(ARGV[i + 5]) - tonumber(ARGV[i + 4])
  if how == 'done' then
    local ttl = tonumber(ARGV[i + 9])
    local brief = surplus or ttl == 0  -- it would be trimmed, or expire, at once
    if not brief or (waited and redis.call('ZSCORE', waiters, id)) then
      if ARGV[i + 8] == '' then result(1, id, i) else result(1, id, i, 'return_value', ARGV[i + 8]) end
    end
    if brief then
      trash(id)
    else
      redis.call('HSET', key, 'status', 'finished', 'started_at', ARGV[i + 6], 'ended_at', ARGV[i + 7],
        'last_heartbeat', ARGV[i + 7])
      expire(prefix .. ':results:' .. id, ttl)
      expire(key, ttl)
      lane.finished[#lane.finished + 1] = ttl < 0 and '+inf' or seconds + ttl
      lane.finished[#lane.finished + 1] = id
    end
    succeeded, working, lane.done = succeeded + 1, working + took, lane.done + 1
  elseif how == 'back' then
    redis.call('HSET', key, 'status', 'queued', 'started_at', '', 'worker_name', '')
    table.insert(lane.back, 1, id)
  elseif how == 'hold' then
    redis.call('HSET', key, 'status', 'scheduled', 'started_at', '', 'worker_name', '')
    lane.scheduled[#lane.scheduled + 1] = string.format('%.6f', now + tonumber(ARGV[i + 8]))
    lane.scheduled[#lane.scheduled + 1] = id
  elseif how == 'away' then
    write_away(lane, i, id, key)
  else
    local results = prefix .. ':results:' .. id
    if how == 'bury' and type(redis.pcall('XLEN', results)) == 'table' then redis.call('DEL', results) end
    result(how == 'retry' and 4 or 2, id, i, 'exc_string', ARGV[i + 8], 'attempt', ARGV[i + 11])
    redis.call('HSET', key, 'started_at', ARGV[i + 6], 'ended_at', ARGV[i + 7], 'last_heartbeat', ARGV[i + 7])
    if ARGV[i + 10] ~= '' then redis.call('HSET', key, 'retries_left', ARGV[i + 10]) end
    if how == 'retry' then
      local wait, ttl = tonumber(ARGV[i + 9]), tonumber(redis.call('HGET', key, 'ttl') or '')
      if ttl then redis.call('EXPIRE', key, math.floor(ttl)) end
      if wait > 0 then
        redis.call('HSET', key, 'status', 'scheduled')
        lane.scheduled[#lane.scheduled + 1] = string.format('%.6f', now + wait)
        lane.scheduled[#lane.scheduled + 1] = id
      else
        redis.call('HSET', key, 'status', 'queued', 'enqueued_at', iso)
        lane.queued[#lane.queued + 1] = id
      end
      lane.retried = lane.retried + 1
    else
      redis.call('HSET', key, 'status', how == 'stop' and 'stopped' or 'failed')
      local ttl = tonumber(ARGV[i + 9])
      if ttl then expire(results, ttl) end  -- as RQ: without a limit of its own it stays
      ttl = ttl or 31536000
      expire(key, ttl)
      lane.dead[#lane.dead + 1] = ttl < 0 and ttl or seconds + ttl
      lane.dead[#lane.dead + 1] = id
      join_dead(ours, lane.name, id, ARGV[i + 12])
    end
    failed, working = failed + 1, working + took
  end
end

local function trim(registry, keep, lane)
  local over, dropped = redis.call('ZCARD', registry) - keep, 0
  if over <= 0 then return 0 end
  local old = redis.call('ZRANGE', registry, 0, math.min(over, 1000) - 1, 'WITHSCORES')
  for i = 1, #old, 2 do
    if old[i + 1] == 'inf' then break end  -- to be kept for ever
    trash(old[i])
    redis.call('ZREM', registry, old[i])
    if lane then leave_dead(ours, lane, old[i]) end
    dropped = dropped + 1
  end
  return dropped
end

local function refuse(i, error)
  refused[#refused + 1] = (i - first) / 13
  refused[#refused + 1] = type(error) == 'table' and error.err or tostring(error)
end

local function write_lane(lane)
  local registry, mine, coming, jobs = prefix .. ':wip:' .. lane.name, {}, 0, {}
  local scores = redis.call('ZMSCORE', registry, unpack(lane.members))
  for n, i in ipairs(lane.jobs) do
    if not scores[n] then
      lost[#lost + 1] = (i - first) / 13
    elseif any_dependents and ends[ARGV[i]]
        and redis.call('EXISTS', prefix .. ':job:' .. ARGV[i + 1] .. ':dependents') == 1 then
      dependents[#dependents + 1] = (i - first) / 13
      if holds then tell_holds(lane, i) end
    elseif away and ARGV[i] == 'away' and ARGV[i + 11] ~= 'held' and blames_wrongly(prefix, ARGV[i + 1]) then
      charged[#charged + 1] = (i - first) / 13
      end_trials(prefix, ours, holds, lane.queue, ARGV[i + 1], 'quiet', now)
    else
      mine[#mine + 1] = lane.members[n]
      jobs[#jobs + 1] = i
      if ARGV[i] == 'done' then coming = coming + 1 end
    end
  end
  if #mine == 0 then return end
  -- The last write ends the lease: were there an error before it, the jobs would not be lost.
  redis.call('SREM', prefix .. ':worker:' .. worker .. ':executions', unpack(mine))
  local ended = {}
  for n, i in ipairs(jobs) do
    local surplus = false
    if ARGV[i] == 'done' then
      coming = coming - 1
      surplus = coming >= keep_completed
    end
    local written, error = pcall(write, lane, i, surplus)
    if written then
      if holds then tell_holds(lane, i) end
      ended[#ended + 1] = mine[n]
      garbage[#garbage + 1] = prefix .. ':execution:' .. mine[n]
      garbage[#garbage + 1] = prefix .. ':executions:' .. ARGV[i + 1]
    else
      refuse(i, error)
    end
  end
  local queue = prefix .. ':queue:' .. lane.name
  if #lane.queued > 0 or #lane.scheduled > 0 or #lane.back > 0 then
    redis.call('SADD', prefix .. ':queues', queue)
  end
  if #lane.queued > 0 then redis.call('RPUSH', queue, unpack(lane.queued)) end
  if #lane.back > 0 then redis.call('LPUSH', queue, unpack(lane.back)) end
  if #lane.scheduled > 0 then redis.call('ZADD', prefix .. ':scheduled:' .. lane.name, unpack(lane.scheduled)) end
  if #lane.finished > 0 then
    redis.call('ZADD', prefix .. ':finished:' .. lane.name, unpack(lane.finished))
    trim(prefix .. ':finished:' .. lane.name, keep_completed)
  end
  if #lane.dead > 0 then
    redis.call('ZADD', prefix .. ':failed:' .. lane.name, unpack(lane.dead))
    lane.dropped = trim(prefix .. ':failed:' .. lane.name, keep_failed, lane.name)
  end
  if #ended > 0 then redis.call('ZREM', registry, unpack(ended)) end
  local totals = ours .. ':totals:' .. lane.queue
  if lane.done > 0 then redis.pcall('HINCRBY', totals, 'completed', lane.done) end
  if #lane.dead > 0 then redis.pcall('HINCRBY', totals, 'failed', #lane.dead / 2) end
  if lane.retried > 0 then redis.pcall('HINCRBY', totals, 'retried', lane.retried) end
  if lane.dropped > 0 then redis.pcall('HINCRBY', totals, 'dropped', lane.dropped) end
end

for _, lane in ipairs(lanes) do
  if #lane.jobs > 0 then
    local written, error = pcall(write_lane, lane)
    if not written then
      for _, i in ipairs(lane.jobs) do refuse(i, error) end
    end
  end
end

for from = 1, #garbage, 1000 do
  redis.call('DEL', unpack(garbage, from, math.min(from + 999, #garbage)))
end
local record = prefix .. ':worker:' .. worker
if succeeded > 0 then redis.call('HINCRBY', record, 'successful_job_count', succeeded) end
if failed > 0 then redis.call('HINCRBY', record, 'failed_job_count', failed) end
if working > 0 then redis.call('HINCRBYFLOAT', record, 'total_working_time', string.format('%.6f', working)) end
local changes = holds and changes_of(prefix, ours, holds, lanes, now) or {}
if holds then save_holds(ours, holds) end
return {lost, dependents, refused, charged, changes}
