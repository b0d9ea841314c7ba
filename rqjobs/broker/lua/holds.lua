-- Holds: which dependency of which queue is away. What reserve.lua, finish.lua and hold.lua share, and stand behind
-- (rqjobs/broker/scripts.py). All times are those of Redis' clock, Unix seconds.
--
-- One hash holds them all, so a queue without a hold costs one look at a key that is not there. Its fields are
-- "queue", or "queue|scope" where only a part of the queue's jobs needs the dependency; its values are JSON:
--   queue, scope, dependency, reason; since; wait (the present interval), next (when the next trial is due);
--   stage ("run" or "admit": where the last failure was found); opener (the job that opened the hold), last (the last job
--   that found the dependency away), lane (the lane of the last trial), trials (how many there were), quiet (trials in a
--   row that neither succeeded nor found the dependency away), out (the trials under way: job -> {till, lane, member})
-- The jobs of a scope are delayed until the next trial, and are in a set (held_jobs) as "lane id" besides.
local FIRST_WAIT, LONGEST_WAIT = 1, 60  -- seconds: a restart takes some; after an hour nobody minds a minute
local MOST_QUIET = 3  -- trials that end for reasons of their own: nothing says any longer that the dependency is away
local MOST_BLAMED = 5  -- holds of one job that others closed: from then on its failures count as its own
local FORGOTTEN = 86400  -- seconds after which a hold ends that no job has tried
local MOST_WOKEN = 5000  -- jobs of a scope that are made due at once when it is back; the others come by themselves

local function hold_name(queue, scope)
  return scope == '' and queue or queue .. '|' .. scope
end

local function held_jobs(ours, name)
  return ours .. ':held:' .. name
end

-- All holds by their names; nil if there is none, as mostly.
local function open_holds(ours)
  local all = redis.pcall('HGETALL', ours .. ':holds')
  if all.err or #all == 0 then return nil end
  local found = {}
  for i = 1, #all, 2 do
    local sound, hold = pcall(cjson.decode, all[i + 1])
    if sound and type(hold) == 'table' then
      hold.name, hold.out = all[i], hold.out or {}
      found[all[i]] = hold
    end
  end
  return found
end

local function save_holds(ours, holds)
  for name, hold in pairs(holds) do
    if hold.closed then
      redis.call('HDEL', ours .. ':holds', name)
    elseif hold.changed then
      hold.changed, hold.name, hold.busy = nil, nil, nil
      redis.call('HSET', ours .. ':holds', name, cjson.encode(hold))
      hold.name = name
    end
  end
end

-- Until when a trial is out, at most; 0 if none is. One whose worker has died, or gave it back, is over: it has lost its
-- lease. One that takes longer than the longest wait does not keep others from trying.
local function trial_until(prefix, hold, now)
  local till = hold.busy or 0  -- started in this call: its lease is yet to be written
  for id, trial in pairs(hold.out) do
    local lease = trial.member == '' or redis.pcall('ZSCORE', prefix .. ':wip:' .. trial.lane, trial.member)
    if not hold.busy and not lease then
      hold.out[id] = nil
    elseif trial.till > now then
      till = math.max(till, trial.till)
    end
  end
  return till
end

-- Seconds until the next trial may start; 0 or less if it may now.
local function until_trial(prefix, hold, now)
  return math.max(hold.next, trial_until(prefix, hold, now)) - now
end

local function start_trial(hold, id, lane, member, now)
  hold.out[id] = {till = now + LONGEST_WAIT, lane = lane, member = member}
  hold.busy, hold.lane, hold.trials, hold.changed = now + LONGEST_WAIT, lane, hold.trials + 1, true
end

-- A run of this job has found the dependency away. Answers the hold, and whether that was its trial.
local function find_away(holds, queue, scope, dependency, reason, stage, id, now)
  local name = hold_name(queue, scope)
  local hold, trial = holds[name], false
  if not hold or hold.closed then
    hold = {name = name, queue = queue, scope = scope, since = now, wait = FIRST_WAIT, next = now + FIRST_WAIT,
      opener = id, trials = 0, quiet = 0, out = {}, lane = '', opened = true}
    holds[name] = hold
  elseif hold.out[id] then
    trial, hold.out[id] = true, nil
    hold.wait = math.min(hold.wait * 2, LONGEST_WAIT)
    hold.next, hold.quiet = now + hold.wait, 0
  end
  hold.dependency, hold.reason, hold.stage, hold.last, hold.changed = dependency, reason, stage, id, true
  return hold, trial
end

-- Makes the delayed jobs of a scope due.
local function wake_jobs(prefix, ours, hold)
  local key, time = held_jobs(ours, hold.name), redis.call('TIME')
  for _, entry in ipairs(redis.call('SRANDMEMBER', key, MOST_WOKEN)) do
    local lane, job = string.match(entry, '^(%S+) (.*)$')
    redis.pcall('ZADD', prefix .. ':scheduled:' .. lane, 'XX', time[1], job)
  end
end

-- The dependency answers: everybody goes on. What blamed it alone is remembered.
local function close_hold(prefix, ours, hold, id)
  hold.closed = true
  if id and hold.opener ~= id and redis.call('EXISTS', prefix .. ':job:' .. hold.opener) == 1 then
    redis.pcall('HINCRBY', prefix .. ':job:' .. hold.opener, 'blamed', 1)
  end
  if hold.scope == '' then return end
  hold.waited = redis.call('SCARD', held_jobs(ours, hold.name))
  wake_jobs(prefix, ours, hold)
  redis.call('DEL', held_jobs(ours, hold.name))
end

-- A run of this job has ended without finding a dependency away: a trial that is done closes its hold, one that failed
-- for reasons of its own tells nothing; one that was given back has not run. ``how``: done, quiet, back.
local function end_trials(prefix, ours, holds, queue, id, how, now)
  for _, hold in pairs(holds) do
    if hold.queue == queue and hold.out[id] and not hold.closed then
      hold.out[id], hold.changed = nil, true
      if how == 'quiet' then hold.quiet = hold.quiet + 1 end
      if how == 'done' then
        close_hold(prefix, ours, hold, id)
      elseif hold.quiet >= MOST_QUIET then
        close_hold(prefix, ours, hold, nil)
      end
    end
  end
end

-- Whether this job has blamed dependencies so often, while others found them answering, that it is its own fault.
local function blames_wrongly(prefix, id)
  local blamed = redis.pcall('HGET', prefix .. ':job:' .. id, 'blamed')
  return type(blamed) == 'string' and (tonumber(blamed) or 0) >= MOST_BLAMED
end

-- Delays a job of a scope until the next trial. Answers the time for its entry in the scheduled registry.
local function keep_for(prefix, ours, hold, lane, id, now)
  local key = held_jobs(ours, hold.name)
  redis.call('SADD', key, lane .. ' ' .. id)
  redis.call('EXPIRE', key, FORGOTTEN)
  redis.call('HSET', prefix .. ':job:' .. id, 'needs', hold.name)
  return string.format('%.6f', math.max(now + math.max(until_trial(prefix, hold, now), 0.05), hold.next))
end

-- What has happened to holds, for the worker's log: for each opened or closed one, what, queue, scope, dependency,
-- reason, seconds since it was opened, jobs that waited for it.
local function changes_of(prefix, ours, holds, lanes, now)
  local changes = {}
  for _, hold in pairs(holds) do
    local what = hold.closed and not hold.opened and 'closed' or hold.opened and not hold.closed and 'opened'
    if what then
      local jobs = hold.waited or 0
      if hold.scope == '' then
        for _, lane in ipairs(lanes) do
          if lane.queue == hold.queue then
            local length = redis.pcall('LLEN', prefix .. ':queue:' .. lane.name)
            if type(length) == 'number' then jobs = jobs + length end
          end
        end
      end
      for _, word in ipairs({what, hold.queue, hold.scope, hold.dependency, hold.reason,
          string.format('%.3f', now - hold.since), jobs}) do
        changes[#changes + 1] = word
      end
    end
    hold.opened = nil
  end
  return changes
end

