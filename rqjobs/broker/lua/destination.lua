-- A webhook destination: the state of its circuit breaker, and the deliveries that are parked for it. It stands before
-- breaker.lua and reserve.lua (rqjobs/broker/scripts.py). A delivery passes the breaker of its origin (scheme, host and
-- port), which opens when no connection is made, and those that open when there is no response: its registered endpoint's,
-- or that of its URL without the query and that of its webhook_id at this origin.
--
-- The hash of a breaker: f, since (failures in a row, and since when), open (until when; 0 is closed), pause (how long it
-- was opened for), probe (until when a trial delivery may take), pace (jobs/s that resume), next (when the first parked
-- delivery may start; the others follow at that rate). Its sorted set has the parked deliveries by when they were enqueued,
-- or parked by reserve.lua: each starts when all before it have started, whichever worker checks it.
local FIELDS_OF_BREAKER, KEPT = {'f', 'since', 'open', 'pause', 'probe', 'pace', 'next'}, 86400
local LONGEST_TIME = 1e11  -- seconds: what another client has written above this, or as no number, counts as 0

-- Whether nothing may start now: its breaker is open, and the trial delivery is not due yet, or is under way.
local function is_open(state, now)
  return state.open > 0 and math.max(state.open, state.probe) > now
end

local function load_destination(ours, name, now)
  local key, waiting = ours .. ':webhooks:breaker:' .. name, ours .. ':webhooks:line:' .. name
  local values, state = redis.call('HMGET', key, unpack(FIELDS_OF_BREAKER)), {ours = ours, name = name, key = key}
  for i, field in ipairs(FIELDS_OF_BREAKER) do
    local number = tonumber(values[i]) or 0
    state[field] = number >= 0 and number < LONGEST_TIME and number or 0
  end
  state.waiting = waiting
  state.parked = redis.call('ZCARD', waiting)
  if state.parked == 0 then state.next = 0 end
  if state.open > now then
    state.next = math.max(state.next, state.open)
  elseif is_open(state, now) and state.next < now + 0.5 then
    state.next = now + 1
  end
  return state
end

local function save_destination(state, now)
  local open, known = state.ours .. ':webhooks:parked', state.ours .. ':webhooks:destinations'
  if state.parked == 0 and state.f == 0 and state.open == 0 then  -- nothing is known against it
    redis.call('DEL', state.key)
    redis.call('ZREM', open, state.name)
    redis.call('ZREM', known, state.name)
    return
  end
  local fields = {}
  for _, field in ipairs(FIELDS_OF_BREAKER) do
    fields[#fields + 1], fields[#fields + 2] = field, string.format('%.6f', state[field])
  end
  redis.call('HSET', state.key, unpack(fields))
  redis.call('EXPIRE', state.key, KEPT)
  redis.call('EXPIRE', state.waiting, KEPT)
  redis.call('ZADD', known, now, state.name)  -- those that have a hash, by their latest change
  if state.open > 0 then
    redis.call('ZADD', open, state.open, state.name)  -- the open ones by their time: what pages show
  else
    redis.call('ZREM', open, state.name)
  end
end

-- Parks a job by the time of its enqueueing, unless it is parked already. Returns its place, from 0.
local function park(state, id, enqueued)
  state.parked = state.parked + redis.call('ZADD', state.waiting, 'NX', enqueued, id)
  return redis.call('ZRANK', state.waiting, id)
end

-- When the job at ``place`` may start, or is to be checked again.
local function turn(state, place, soonest)
  return string.format('%.6f', math.max(state.next + place / state.pace, soonest))
end

-- The destinations and origins to which nothing may start now, by their names; none if a key of theirs is of another type.
local function open_destinations(ours, now)
  local open, found = ours .. ':webhooks:parked', {}
  if redis.call('TYPE', open).ok ~= 'zset' or not has_type(ours .. ':webhooks:destinations', 'zset') then return found end
  for _, name in ipairs(redis.call('ZREVRANGE', open, 0, 99)) do
    if has_type(ours .. ':webhooks:breaker:' .. name, 'hash') and has_type(ours .. ':webhooks:line:' .. name, 'zset') then
      local state = load_destination(ours, name, now)
      if state.pace > 0 and is_open(state, now) then found[name] = state end
    end
  end
  return found
end

-- Until when a job is to be parked that is about to be claimed; false if it is not to. It names its destination in the
-- field that enqueueing has written (WebhookJob.destination in rqjobs/jobs/webhook.py): a registered endpoint, or origin,
-- path and webhook_id, a line each. A job without it is claimed, and the worker checks it (breaker.lua), as one that names none of the
-- open destinations. This costs a tenth of that.
local function parked_until(open, now, id, key, again)
  local destination = redis.call('HGET', key, 'destination')
  if not destination then return false end
  local origin, path, webhook_id = string.match(destination, '^([^\n]+)\n([^\n]+)\n(.+)$')
  local state = open[destination]
  if origin then state = open[origin] or open[origin .. path] or open[origin .. ' ' .. webhook_id] end
  if not state then return false end
  -- A job that runs again is parked already, or has failed: then breaker.lua decides.
  local place = again and redis.call('ZRANK', state.waiting, id) or not again and park(state, id, string.format('%.6f', now))
  if not place then return false end
  state.changed = true
  return turn(state, place, now + 0.01)
end

local function save_destinations(open, now)
  for _, state in pairs(open) do
    if state.changed then save_destination(state, now) end
  end
end

