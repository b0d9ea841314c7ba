-- Holds: which dependency of which queue is away. It stands before reserve.lua, finish.lua and hold.lua
-- (rqjobs/broker/scripts.py). All times are those of Redis' clock, Unix seconds.
--
-- One hash holds them all, so a queue without a hold costs one read of a key that does not exist. Its fields are
-- "queue", or "queue|scope" where only a part of the queue's jobs needs the dependency; its values are JSON:
--   queue, scope, dependency, reason; since; wait (the present interval), next (when the next trial is due);
--   stage ("run" or "admit": where the last failure was found); opener (the job that opened the hold), last (the last job
--   that found the dependency away), lane (the lane of the last trial), trials (how many there were), quiet (trials in a
--   row that neither succeeded nor found the dependency away), out (the trials under way: job -> {till, lane, member})
-- The jobs of a scope are delayed until the next trial, and are in a set (held_jobs) as "lane id" besides.
local FIRST_WAIT, LONGEST_WAIT = 1, 60  -- seconds: a restart takes some; after an hour a minute more is short
local MOST_QUIET = 3  -- trials that end for reasons of their own: then nothing shows any longer that the dependency is away
local MOST_BLAMED = 5  -- holds of one job that others closed: from then on its failures count as its own
local FORGOTTEN = 86400  -- seconds after which a hold ends that no job has tried
local MOST_WOKEN = 5000  -- jobs of a scope that are made due at once when it is back; the others come by themselves

local function hold_name(queue, scope)
  return scope == '' and queue or queue .. '|' .. scope
end

local function held_jobs(ours, name)
  return ours .. ':held:' .. name
end

local function is_time(number) return type(number) == 'number' and number >= 0 and number < 1e11 end

-- Whether a hold has the form that find_away gives it: any client may have written another.
local function is_hold(hold)
  for _, field in ipairs({'queue', 'scope', 'dependency', 'reason', 'stage', 'opener', 'last', 'lane'}) do
    if type(hold[field]) ~= 'string' then return false end
  end
  for _, field in ipairs({'since', 'wait', 'next', 'trials', 'quiet'}) do
    if not is_time(hold[field]) then return false end
  end
  for _, trial in pairs(type(hold.out) == 'table' and hold.out or {}) do
    if type(trial) ~= 'table' or not is_time(trial.till) or type(trial.lane) ~= 'string' or type(trial.member) ~= 'string'
    then return false end
  end
  return true
end

-- All holds by their names; nil if there is none, as mostly. One that another client has written in another form is none.
local function open_holds(ours)
  local all = try('HGETALL', ours .. ':holds')
  if not all or #all == 0 then return nil end
  local found = {}
  for i = 1, #all, 2 do
    local hold = decode_table(all[i + 1])
    if hold and is_hold(hold) then
      hold.name, hold.out = all[i], type(hold.out) == 'table' and hold.out or {}
      found[all[i]] = hold
    end
  end
  return found
end

local function save_holds(ours, holds)
  for name, hold in pairs(holds) do
    if hold.closed then
      try('HDEL', ours .. ':holds', name)
    elseif hold.changed then
      hold.changed, hold.name, hold.busy = nil, nil, nil
      try('HSET', ours .. ':holds', name, cjson.encode(hold))
      hold.name = name
    end
  end
end

-- Until when a trial runs, at most; 0 if none does. One whose worker has died, or released it, is over: it has lost its
-- lease. One that takes longer than the longest wait does not keep others from trying.
local function trial_until(prefix, hold, now)
  local till = hold.busy or 0  -- started in this call: its lease is yet to be written
  for id, trial in pairs(hold.out) do
    local lease = trial.member == '' or try('ZSCORE', prefix .. ':wip:' .. trial.lane, trial.member) ~= false
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

-- A run of this job has found the dependency away. Returns the hold, and whether that was its trial.
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
  for _, entry in ipairs(try('SRANDMEMBER', key, MOST_WOKEN) or {}) do
    local lane, job = string.match(entry, '^(%S+) (.*)$')
    if lane then try('ZADD', prefix .. ':scheduled:' .. lane, 'XX', time[1], job) end
  end
end

-- The dependency answers: all jobs go on. The job that opened the hold alone is counted as one that blamed it.
local function close_hold(prefix, ours, hold, id)
  hold.closed = true
  if id and hold.opener ~= id and redis.call('EXISTS', prefix .. ':job:' .. hold.opener) == 1 then
    try('HINCRBY', prefix .. ':job:' .. hold.opener, 'blamed', 1)
  end
  if hold.scope == '' then return end
  hold.waited = try('SCARD', held_jobs(ours, hold.name)) or 0
  wake_jobs(prefix, ours, hold)
  redis.call('DEL', held_jobs(ours, hold.name))
end

-- A run of this job has ended without finding a dependency away: a trial that is done closes its hold, one that failed
-- for reasons of its own shows nothing; one that was released has not run. ``how``: done, quiet, back.
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
  local blamed = try('HGET', prefix .. ':job:' .. id, 'blamed')
  return (tonumber(blamed or '') or 0) >= MOST_BLAMED
end

-- Delays a job of a scope until the next trial. Returns the time for its entry in the scheduled registry.
local function keep_for(prefix, ours, hold, lane, id, now)
  local key = held_jobs(ours, hold.name)
  try('SADD', key, lane .. ' ' .. id)
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
            jobs = jobs + (try('LLEN', prefix .. ':queue:' .. lane.name) or 0)
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

