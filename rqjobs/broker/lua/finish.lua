-- Writes the outcomes of claimed jobs, as RQ 3 does, in one step. A job whose lease was lost to another worker is left
-- alone: its execution is no longer in the started registry. rqjobs/worker/protocol.py encodes and decodes this.
-- ARGV: RQ's prefix, our prefix, worker, now (RQ's format), completed jobs kept, failed jobs kept,
--   number of lanes, for each: name, its queue, how long a job has the slot of its group: '' = its group has any number
--     of slots, 'run' = until its run ends, 'job' = until it is done or dead
--   then for each job: outcome, id, execution, lane (from 1), started, ended (unix s), started, ended (RQ's format), and
--     done         result (base64, '' = none), how long it is kept (s, -1 = for ever), its batch ('' = none), '', ''
--     retry        error (base64 of zlib), seconds to wait, retries left ('' = unchanged), attempt, ''
--     dead         error, how long it is kept (s, '' = RQ's year, -1 = for ever), retries left, attempt, its entry in the
--                  index of dead letters
--     stopped      as dead, for a job that was stopped by command
--     forced       as dead, for a job whose true outcome was refused: its results are deleted if they are of another type
--     released     '', '', '', '', ''                to the front of its queue, as if it had not been claimed
--     held         seconds to wait, '', '', '', ''   to the scheduled registry, no attempt counted
--     unavailable  scope ('' = the whole queue), dependency, reason, stage, ''   no attempt counted: a dependency is away
--                  (holds.lua). The stage is "run", "admit", or "held" for a job that has not tried it
-- Returns {positions of jobs (from 0) that lost their lease; that have dependents: not written, the RQ compatibility path
--   writes them; that were refused, each with the error after it: a key of the job or of its lane has another type than
--   RQ's (broken_keys.lua), or a number is out of range; that were not written because other jobs find the dependency answering: it is their own failure; and the
--   holds that were opened or closed: what, queue, scope, dependency, reason, seconds, jobs that waited, ...; 1 if a
--   group with waiting jobs has a free slot again}
local redis, ARGV = redis, ARGV  -- a local is found sooner than a global
local prefix, ours, worker, iso = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
local keep_completed, keep_failed, lane_count = tonumber(ARGV[5]), tonumber(ARGV[6]), tonumber(ARGV[7])
local JOB = 13  -- arguments of a job
local time = redis.call('TIME')
local now, seconds = tonumber(time[1]) + tonumber(time[2]) / 1000000, tonumber(time[1])
local lost, dependents, refused, own_failures, garbage = {}, {}, {}, {}, {}
local succeeded, failed, working = 0, 0, 0

-- This key never exists: a write that a full Redis allows, and then the others too. A replica, or a Redis that cannot
-- save, refuses it here; any later error is due to one job or lane.
redis.call('DEL', prefix .. ':wip')

local ends = {done = true, dead = true, stopped = true, forced = true}  -- after these, dependents may run

local lanes, at = {}, 8
for i = 1, lane_count do
  lanes[i] = {name = ARGV[at], queue = ARGV[at + 1], slot = ARGV[at + 2]}
  at = at + 3
end

-- The arguments of the job at ``at``: outcome, id, execution, lane; then its times; then those of its outcome.
local function head_of(at) return ARGV[at], ARGV[at + 1], ARGV[at + 2], lanes[tonumber(ARGV[at + 3])] end
local function times_of(at) return ARGV[at + 4], ARGV[at + 5], ARGV[at + 6], ARGV[at + 7] end
local function fields_of(at) return ARGV[at + 8], ARGV[at + 9], ARGV[at + 10], ARGV[at + 11], ARGV[at + 12] end

local first, parents, unavailable = at, {}, false
while ARGV[at] do
  local outcome, id, execution, lane = head_of(at)
  if not lane.jobs then
    lane.jobs, lane.members, lane.counts = {}, {}, {completed = 0, failed = 0, retried = 0, dropped = 0}
    lane.queued, lane.released, lane.scheduled, lane.finished, lane.dead = {}, {}, {}, {}, {}
  end
  lane.jobs[#lane.jobs + 1] = at
  lane.members[#lane.members + 1] = id .. ':' .. execution
  if outcome == 'unavailable' then unavailable = true end
  if ends[outcome] then parents[#parents + 1] = prefix .. ':job:' .. id .. ':dependents' end
  at = at + JOB
end
local any_dependents = #parents > 0 and redis.call('EXISTS', unpack(parents)) > 0

local holds = open_holds(ours) or unavailable and {}

local waiters, waited = ours .. ':waiters', false
if redis.call('EXISTS', waiters) == 1 then waited = true end

local function add_result(kind, at, ...)
  local _, id, execution = head_of(at)
  local started, ended = times_of(at)
  redis.call('XADD', prefix .. ':results:' .. id, 'MAXLEN', '~', 100, '*', 'type', kind, 'worker_name', worker,
    'execution_id', execution, 'execution_started_at', started, 'execution_ended_at', ended, ...)
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
local function write_unavailable(lane, at, id, key)
  local scope, dependency, reason, stage = fields_of(at)
  local hold, trial = nil, false
  if stage == 'held' then
    hold = holds[hold_name(lane.queue, scope)]
  else
    hold, trial = find_away(holds, lane.queue, scope, dependency, reason, stage, id, now)
  end
  if scope ~= '' and hold and not hold.closed then
    redis.call('HSET', key, 'status', 'scheduled', 'started_at', '', 'worker_name', '')
    lane.scheduled[#lane.scheduled + 1] = keep_for(prefix, ours, hold, lane.name, id, now)
    lane.scheduled[#lane.scheduled + 1] = id
    return
  end
  redis.call('HSET', key, 'status', 'queued', 'started_at', '', 'worker_name', '')
  if trial then lane.queued[#lane.queued + 1] = id else table.insert(lane.released, 1, id) end
end

local TRIAL_ENDS = {done = 'done', released = 'back', held = 'back', unavailable = 'away'}  -- any other: quiet (holds.lua)

-- A run has ended: its hold ends with it, if it was a trial.
local function end_trial(lane, outcome, id)
  local how = TRIAL_ENDS[outcome] or 'quiet'
  if how ~= 'away' then end_trials(prefix, ours, holds, lane.queue, id, how, now) end
end

local done_members = {}  -- by their batches

local function write_done(lane, at, id, key, surplus)
  local _, _, started_at, ended_at = times_of(at)
  local value, kept, batch = fields_of(at)
  local ttl = tonumber(kept)
  local brief = surplus or ttl == 0  -- it would be trimmed, or expire, at once
  if not brief or (waited and redis.call('ZSCORE', waiters, id)) then
    if value == '' then add_result(1, at) else add_result(1, at, 'return_value', value) end
  end
  if brief then
    trash(id)
  else
    redis.call('HSET', key, 'status', 'finished', 'started_at', started_at, 'ended_at', ended_at,
      'last_heartbeat', ended_at)
    expire(prefix .. ':results:' .. id, ttl)
    expire(key, ttl)
    lane.finished[#lane.finished + 1] = ttl < 0 and '+inf' or seconds + ttl
    lane.finished[#lane.finished + 1] = id
  end
  lane.counts.completed = lane.counts.completed + 1
  if batch ~= '' then
    done_members[batch] = done_members[batch] or {}
    table.insert(done_members[batch], id)
  end
end

-- What retry and dead have in common.
local function write_failed(at, id, key, kind)
  local _, _, started_at, ended_at = times_of(at)
  local error, _, left, attempt = fields_of(at)
  add_result(kind, at, 'exc_string', error, 'attempt', attempt)
  redis.call('HSET', key, 'started_at', started_at, 'ended_at', ended_at, 'last_heartbeat', ended_at)
  if left ~= '' then redis.call('HSET', key, 'retries_left', left) end
end

local function write_retry(lane, at, id, key)
  write_failed(at, id, key, 4)
  local _, seconds_to_wait = fields_of(at)
  local wait, ttl = tonumber(seconds_to_wait), tonumber(redis.call('HGET', key, 'ttl') or '')
  if ttl then redis.call('EXPIRE', key, math.floor(ttl)) end
  if wait > 0 then
    redis.call('HSET', key, 'status', 'scheduled')
    lane.scheduled[#lane.scheduled + 1] = string.format('%.6f', now + wait)
    lane.scheduled[#lane.scheduled + 1] = id
  else
    redis.call('HSET', key, 'status', 'queued', 'enqueued_at', iso)
    lane.queued[#lane.queued + 1] = id
  end
  lane.counts.retried = lane.counts.retried + 1
end

local function write_dead(lane, at, id, key, outcome)
  local results = prefix .. ':results:' .. id
  if outcome == 'forced' and not has_type(results, 'stream') then redis.call('DEL', results) end
  write_failed(at, id, key, 2)
  redis.call('HSET', key, 'status', outcome == 'stopped' and 'stopped' or 'failed')
  local _, kept, _, _, entry = fields_of(at)
  local ttl = tonumber(kept)
  if ttl then expire(results, ttl) end  -- as RQ: without a limit of its own it stays
  ttl = ttl or 31536000
  expire(key, ttl)
  lane.dead[#lane.dead + 1] = ttl < 0 and ttl or seconds + ttl
  lane.dead[#lane.dead + 1] = id
  join_dead(ours, lane.name, id, entry)
  local batch = redis.call('HGET', key, 'batch')
  if batch then member_dead(prefix, ours, batch, id) end
end

local function write(lane, at, surplus)
  local outcome, id = head_of(at)
  local key = prefix .. ':job:' .. id
  if outcome == 'released' then
    redis.call('HSET', key, 'status', 'queued', 'started_at', '', 'worker_name', '')
    table.insert(lane.released, 1, id)
    return
  elseif outcome == 'held' then
    local wait = fields_of(at)
    redis.call('HSET', key, 'status', 'scheduled', 'started_at', '', 'worker_name', '')
    lane.scheduled[#lane.scheduled + 1] = string.format('%.6f', now + tonumber(wait))
    lane.scheduled[#lane.scheduled + 1] = id
    return
  elseif outcome == 'unavailable' then
    write_unavailable(lane, at, id, key)
    return
  end
  local started, ended = times_of(at)
  if outcome == 'done' then
    write_done(lane, at, id, key, surplus)
    succeeded = succeeded + 1
  else
    if outcome == 'retry' then write_retry(lane, at, id, key) else write_dead(lane, at, id, key, outcome) end
    failed = failed + 1
  end
  working = working + tonumber(ended) - tonumber(started)
end

local function trim(registry, keep, lane)
  local over, dropped = redis.call('ZCARD', registry) - keep, 0
  if over <= 0 then return 0 end
  local old = redis.call('ZRANGE', registry, 0, math.min(over, 1000) - 1, 'WITHSCORES')
  for i = 1, #old, 2 do
    if old[i + 1] == 'inf' then break end  -- to be kept for ever
    trash(old[i])
    if lane then leave_dead(ours, lane, old[i]) end
    dropped = dropped + 1
  end
  if dropped > 0 then redis.call('ZREMRANGEBYRANK', registry, 0, dropped - 1) end
  return dropped
end

local function position(at) return (at - first) / JOB end

local function refuse(at, error)
  refused[#refused + 1] = position(at)
  refused[#refused + 1] = type(error) == 'table' and error.err or tostring(error)
end

-- Sorts the jobs of a lane: those that are not written go to the response. Returns of the others where their arguments are,
-- their members, and how many are done.
local function sort_jobs(lane)
  local jobs, mine, done = {}, {}, 0
  local scores = redis.call('ZMSCORE', prefix .. ':wip:' .. lane.name, unpack(lane.members))
  for n, at in ipairs(lane.jobs) do
    local outcome, id = head_of(at)
    if not scores[n] then
      lost[#lost + 1] = position(at)
    elseif any_dependents and ends[outcome] and redis.call('EXISTS', prefix .. ':job:' .. id .. ':dependents') == 1 then
      dependents[#dependents + 1] = position(at)
      if holds then end_trial(lane, outcome, id) end
    elseif outcome == 'unavailable' and select(4, fields_of(at)) ~= 'held' and blames_wrongly(prefix, id) then
      own_failures[#own_failures + 1] = position(at)
      end_trials(prefix, ours, holds, lane.queue, id, 'quiet', now)
    else
      mine[#mine + 1] = lane.members[n]
      jobs[#jobs + 1] = at
      if outcome == 'done' then done = done + 1 end
    end
  end
  return jobs, mine, done
end

local freed = 0

-- The slots of these jobs, with their groups, are free again.
local function free_slots(lane, ids, groups)
  local members = {}
  for n, group in ipairs(groups) do members[n] = group .. '\n' .. ids[n] end
  redis.call('ZREM', group_key(ours, 'slots', lane.queue), unpack(members))
  for _, group in ipairs(groups) do
    if slot_is_free(ours, lane.queue, group) then freed = 1 end
  end
end

-- Moves the jobs of a lane to the registries of their outcomes.
local function write_registries(lane)
  local queue = prefix .. ':queue:' .. lane.name
  if #lane.queued > 0 or #lane.scheduled > 0 or #lane.released > 0 then
    try('SADD', prefix .. ':queues', queue)
  end
  if #lane.queued > 0 then redis.call('RPUSH', queue, unpack(lane.queued)) end
  if #lane.released > 0 then redis.call('LPUSH', queue, unpack(lane.released)) end
  if #lane.scheduled > 0 then redis.call('ZADD', prefix .. ':scheduled:' .. lane.name, unpack(lane.scheduled)) end
  if #lane.finished > 0 then
    redis.call('ZADD', prefix .. ':finished:' .. lane.name, unpack(lane.finished))
    trim(prefix .. ':finished:' .. lane.name, keep_completed)
  end
  if #lane.dead > 0 then
    redis.call('ZADD', prefix .. ':failed:' .. lane.name, unpack(lane.dead))
    lane.counts.failed = #lane.dead / 2
    lane.counts.dropped = trim(prefix .. ':failed:' .. lane.name, keep_failed, lane.name)
  end
end

local function write_lane(lane)
  local jobs, mine, coming = sort_jobs(lane)
  if #mine == 0 then return end
  -- The last write ends the lease: were there an error before it, the jobs would not be lost.
  redis.call('SREM', prefix .. ':worker:' .. worker .. ':executions', unpack(mine))
  local ended, free, groups = {}, {}, {}
  local grouped = redis.call('EXISTS', group_key(ours, 'slots', lane.queue)) == 1
  for n, at in ipairs(jobs) do
    local outcome, id = head_of(at)
    local surplus = false
    if outcome == 'done' then
      coming = coming - 1
      surplus = coming >= keep_completed
    end
    local written, error = pcall(write, lane, at, surplus)
    if written then
      if holds then end_trial(lane, outcome, id) end
      -- With 'job' a slot is kept over retries, and with it the order of the group.
      local group = grouped and (lane.slot ~= 'job' or ends[outcome]) and group_of(prefix, id)
      if group then free[#free + 1], groups[#groups + 1] = id, group end
      ended[#ended + 1] = mine[n]
      local last = #garbage
      garbage[last + 1], garbage[last + 2] = prefix .. ':execution:' .. mine[n], prefix .. ':executions:' .. id
    else
      refuse(at, error)
    end
  end
  if #groups > 0 then pcall(free_slots, lane, free, groups) end
  write_registries(lane)
  if #ended > 0 then redis.call('ZREM', prefix .. ':wip:' .. lane.name, unpack(ended)) end
  for total, count in pairs(lane.counts) do
    if count > 0 then try('HINCRBY', ours .. ':totals:' .. lane.queue, total, count) end
  end
end

for _, lane in ipairs(lanes) do
  if lane.jobs then
    local broken, written, error = broken_key(prefix, lane.name), false, nil
    if broken then
      error = broken .. ' is of another type: its lane is out of use'
    else
      written, error = pcall(write_lane, lane)
    end
    if not written then
      for _, at in ipairs(lane.jobs) do refuse(at, error) end
    end
  end
end

for batch, ids in pairs(done_members) do members_done(prefix, ours, batch, ids) end
for from = 1, #garbage, 1000 do
  redis.call('DEL', unpack(garbage, from, math.min(from + 999, #garbage)))
end
local record = prefix .. ':worker:' .. worker
if succeeded > 0 then redis.call('HINCRBY', record, 'successful_job_count', succeeded) end
if failed > 0 then redis.call('HINCRBY', record, 'failed_job_count', failed) end
if working > 0 then redis.call('HINCRBYFLOAT', record, 'total_working_time', string.format('%.6f', working)) end
local changes = holds and changes_of(prefix, ours, holds, lanes, now) or {}
if holds then save_holds(ours, holds) end
return {lost, dependents, refused, own_failures, changes, freed}
