-- A webhook destination: the state of its circuit breaker, and its parked deliveries. It is put before breaker.lua and
-- reserve.lua (rqjobs/broker/scripts.py). A delivery passes the breaker of its origin (scheme, host and port), which opens
-- when no connection is made, and those that open when there is no response: that of its registered endpoint, or those of
-- its URL without the query and of its webhook_id at this origin.
--
-- The hash of a breaker: f, since (consecutive failures, and the time of the first), open (when it becomes half-open; 0 is
-- closed), pause (for how long it was opened), probe (the deadline of the trial delivery), pace (jobs/s that resume), next
-- (when the first parked delivery may start; the others follow at that rate). Its sorted set has the parked deliveries by
-- the time of enqueueing: they start in this order, with any worker.
local FIELDS_OF_BREAKER, KEPT = {'f', 'since', 'open', 'pause', 'probe', 'pace', 'next'}, 86400
local LONGEST_TIME = 1e11  -- seconds: a larger value, or one that is not a number, counts as 0 (another client may have written it)

-- Returns whether no delivery may start now: the breaker is open, and the trial delivery is not due, or is running.
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
  if state.parked == 0 and state.f == 0 and state.open == 0 then  -- no failures and no parked deliveries
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

-- Returns when the job at ``place`` may start, or must be checked again.
local function turn(state, place, soonest)
  return string.format('%.6f', math.max(state.next + place / state.pace, soonest))
end

-- Returns the destinations and origins to which no delivery may start now, by name; none if their keys have a wrong type.
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

-- Returns until when a job is parked that is about to be claimed; false if it can be claimed. Its destination is in a field
-- that enqueueing has written (rqjobs/broker/job_builder.py): the time of enqueueing in microseconds, then a registered
-- endpoint, or origin, path and webhook_id, a line each. A job without the field, or with none of the open destinations,
-- is claimed, and the worker checks it (breaker.lua), which costs ten times as much.
local function parked_until(open, now, id, key, again)
  local enqueued, destination = string.match(redis.call('HGET', key, 'destination') or '', '^(%d+)\n(.+)$')
  enqueued = tonumber(enqueued or '') or 1 / 0
  if enqueued / 1000000 >= LONGEST_TIME then return false end
  local origin, path, webhook_id = string.match(destination, '^([^\n]+)\n([^\n]+)\n(.+)$')
  local state = open[destination]
  if origin then state = open[origin] or open[origin .. path] or open[origin .. ' ' .. webhook_id] end
  if not state then return false end
  -- A job that runs again is parked already, or has failed: then breaker.lua decides.
  local place
  if again then
    place = redis.call('ZRANK', state.waiting, id)
  else
    place = park(state, id, string.format('%.6f', enqueued / 1000000))
  end
  if not place then return false end
  state.changed = true
  return turn(state, place, now + 0.01)
end

local function save_destinations(open, now)
  for _, state in pairs(open) do
    if state.changed then save_destination(state, now) end
  end
end

