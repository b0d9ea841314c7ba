-- Writes what became of started jobs, as RQ 3 does, in one step. A job whose lease was lost to another worker
-- is left alone: its execution is no longer in the started registry.
-- ARGV: RQ's prefix, our prefix, worker, now (RQ's format), completed jobs kept, failed jobs kept,
--   number of lanes, for each: name, its queue
--   then for each job: how, id, execution, lane (from 1), started, ended (unix s), started, ended (RQ's format), and
--     done   result (base64, '' = none), how long it is kept (s, -1 = for ever), '', ''
--     retry  error (base64 of zlib), seconds to wait, retries left, attempt
--     dead   error, how long it is kept (s, '' = RQ's year, -1 = for ever), retries left, attempt
--     back   '', '', '', ''           to the front of its queue, as if it had not been taken
--     hold   when (unix s), '', '', ''  to the scheduled registry, no attempt counted
-- Answers {ids whose lease was lost, ids with dependents: not written, RQ's own path is to finish them}
local prefix, ours, worker, iso = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
local keep_completed, keep_failed = tonumber(ARGV[5]), tonumber(ARGV[6])
local time = redis.call('TIME')
local now, seconds = tonumber(time[1]) + tonumber(time[2]) / 1000000, tonumber(time[1])
local lost, dependents, garbage = {}, {}, {}
local succeeded, failed, working = 0, 0, 0

local lanes, at = {}, 8
for i = 1, tonumber(ARGV[7]) do
  lanes[i] = {name = ARGV[at], queue = ARGV[at + 1], jobs = {}, members = {}, back = {}, done = 0,
    finished = {}, dead = {}, scheduled = {}, queued = {}, retried = 0}
  at = at + 2
end

local parents = {}
for i = at, #ARGV, 12 do
  if ARGV[i] == 'done' or ARGV[i] == 'dead' then
    parents[#parents + 1] = prefix .. ':job:' .. ARGV[i + 1] .. ':dependents'
  end
end
local any_dependents = #parents > 0 and redis.call('EXISTS', unpack(parents)) > 0
while ARGV[at] do
  local lane = lanes[tonumber(ARGV[at + 3])]
  local id, how = ARGV[at + 1], ARGV[at]
  if any_dependents and (how == 'done' or how == 'dead')
      and redis.call('EXISTS', prefix .. ':job:' .. id .. ':dependents') == 1 then
    dependents[#dependents + 1] = id
  else
    lane.jobs[#lane.jobs + 1] = at
    lane.members[#lane.members + 1] = id .. ':' .. ARGV[at + 2]
  end
  at = at + 12
end

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

local function write(lane, i, surplus)
  local how, id = ARGV[i], ARGV[i + 1]
  local key = prefix .. ':job:' .. id
  local took = tonumber(ARGV[i + 5]) - tonumber(ARGV[i + 4])
  if how == 'done' then
    succeeded, working, lane.done = succeeded + 1, working + took, lane.done + 1
    local ttl = tonumber(ARGV[i + 9])
    local asked = waited and redis.call('ZSCORE', waiters, id)
    if (surplus or ttl == 0) and not asked then  -- it would be trimmed, or expire, at once
      trash(id)
      return
    end
    if ARGV[i + 8] == '' then result(1, id, i) else result(1, id, i, 'return_value', ARGV[i + 8]) end
    if surplus or ttl == 0 then
      trash(id)
      return
    end
    redis.call('HSET', key, 'status', 'finished', 'started_at', ARGV[i + 6], 'ended_at', ARGV[i + 7],
      'last_heartbeat', ARGV[i + 7])
    expire(prefix .. ':results:' .. id, ttl)
    expire(key, ttl)
    lane.finished[#lane.finished + 1] = ttl < 0 and '+inf' or seconds + ttl
    lane.finished[#lane.finished + 1] = id
  elseif how == 'back' then
    redis.call('HSET', key, 'status', 'queued', 'started_at', '', 'worker_name', '')
    table.insert(lane.back, 1, id)
  elseif how == 'hold' then
    redis.call('HSET', key, 'status', 'scheduled', 'started_at', '', 'worker_name', '')
    lane.scheduled[#lane.scheduled + 1] = ARGV[i + 8]
    lane.scheduled[#lane.scheduled + 1] = id
  else
    failed, working = failed + 1, working + took
    result(how == 'retry' and 4 or 2, id, i, 'exc_string', ARGV[i + 8], 'attempt', ARGV[i + 11])
    redis.call('HSET', key, 'started_at', ARGV[i + 6], 'ended_at', ARGV[i + 7], 'last_heartbeat', ARGV[i + 7])
    if ARGV[i + 10] ~= '' then redis.call('HSET', key, 'retries_left', ARGV[i + 10]) end
    if how == 'dead' then
      redis.call('HSET', key, 'status', 'failed')
      local ttl = tonumber(ARGV[i + 9])
      if ttl then expire(prefix .. ':results:' .. id, ttl) end  -- as RQ: without a limit of its own it stays
      ttl = ttl or 31536000
      expire(key, ttl)
      lane.dead[#lane.dead + 1] = ttl < 0 and ttl or seconds + ttl
      lane.dead[#lane.dead + 1] = id
    else
      lane.retried = lane.retried + 1
      local wait, ttl = tonumber(ARGV[i + 9]), tonumber(redis.call('HGET', key, 'ttl') or '')
      if wait > 0 then
        redis.call('HSET', key, 'status', 'scheduled')
        lane.scheduled[#lane.scheduled + 1] = string.format('%.6f', now + wait)
        lane.scheduled[#lane.scheduled + 1] = id
      else
        redis.call('HSET', key, 'status', 'queued', 'enqueued_at', iso)
        lane.queued[#lane.queued + 1] = id
      end
      if ttl then redis.call('EXPIRE', key, math.floor(ttl)) end
    end
  end
end

local function trim(registry, keep)
  local over = redis.call('ZCARD', registry) - keep
  if over <= 0 then return end
  local old = redis.call('ZRANGE', registry, 0, math.min(over, 1000) - 1, 'WITHSCORES')
  for i = 1, #old, 2 do
    if old[i + 1] == 'inf' then return end  -- to be kept for ever
    trash(old[i])
    redis.call('ZREM', registry, old[i])
  end
end

for _, lane in ipairs(lanes) do
  if #lane.members > 0 then
    local registry, mine, coming = prefix .. ':wip:' .. lane.name, {}, 0
    local scores = redis.call('ZMSCORE', registry, unpack(lane.members))
    local jobs = {}
    for n, i in ipairs(lane.jobs) do
      if scores[n] then
        mine[#mine + 1] = lane.members[n]
        jobs[#jobs + 1] = i
        if ARGV[i] == 'done' then coming = coming + 1 end
      else
        lost[#lost + 1] = ARGV[i + 1]
      end
    end
    if #mine > 0 then
      -- The first write is one that a full Redis allows; it allows the others of the script then. The last one ends
      -- the lease: were there an error in between, the jobs would not be lost.
      redis.call('SREM', prefix .. ':worker:' .. worker .. ':executions', unpack(mine))
      for n, i in ipairs(jobs) do
        garbage[#garbage + 1] = prefix .. ':execution:' .. mine[n]
        garbage[#garbage + 1] = prefix .. ':executions:' .. ARGV[i + 1]
        local surplus = false
        if ARGV[i] == 'done' then
          coming = coming - 1
          surplus = coming >= keep_completed
        end
        write(lane, i, surplus)
      end
    end
    local queue = prefix .. ':queue:' .. lane.name
    if #lane.queued > 0 or #lane.scheduled > 0 or #lane.back > 0 then
      redis.call('SADD', prefix .. ':queues', queue)
    end
    if #lane.queued > 0 then redis.call('RPUSH', queue, unpack(lane.queued)) end
    if #lane.back > 0 then
      local front = {}
      for n, id in ipairs(lane.back) do front[n] = id end
      redis.call('LPUSH', queue, unpack(front))
    end
    if #lane.scheduled > 0 then redis.call('ZADD', prefix .. ':scheduled:' .. lane.name, unpack(lane.scheduled)) end
    if #lane.finished > 0 then
      redis.call('ZADD', prefix .. ':finished:' .. lane.name, unpack(lane.finished))
      trim(prefix .. ':finished:' .. lane.name, keep_completed)
    end
    if #lane.dead > 0 then
      redis.call('ZADD', prefix .. ':failed:' .. lane.name, unpack(lane.dead))
      trim(prefix .. ':failed:' .. lane.name, keep_failed)
    end
    if #mine > 0 then redis.call('ZREM', registry, unpack(mine)) end
    local totals = ours .. ':totals:' .. lane.queue
    if lane.done > 0 then redis.call('HINCRBY', totals, 'completed', lane.done) end
    if #lane.dead > 0 then redis.call('HINCRBY', totals, 'failed', #lane.dead / 2) end
    if lane.retried > 0 then redis.call('HINCRBY', totals, 'retried', lane.retried) end
  end
end

for from = 1, #garbage, 1000 do
  redis.call('DEL', unpack(garbage, from, math.min(from + 999, #garbage)))
end
local record = prefix .. ':worker:' .. worker
if succeeded > 0 then redis.call('HINCRBY', record, 'successful_job_count', succeeded) end
if failed > 0 then redis.call('HINCRBY', record, 'failed_job_count', failed) end
if working > 0 then redis.call('HINCRBYFLOAT', record, 'total_working_time', string.format('%.6f', working)) end
return {lost, dependents}
