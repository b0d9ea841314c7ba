-- A circuit breaker of webhooks, and the line of the deliveries that are parked for it. What breaker.lua and parking.lua
-- share, and stand behind (rqjobs/broker/scripts.py). A delivery passes that of its origin (scheme, host and port), which opens
-- when no connection is made, and those that open when there is no answer: its registered endpoint's, or that of its URL
-- without the query, and that of its webhook_id at this origin.
--
-- Its hash: f, since (failures in a row, and since when); open (until when; 0 is closed), pause (how long it was opened
-- for), probe (until when one delivery is out to find out); pace (jobs/s of its line), next (when the first of the line
-- may start; the others follow at the pace).
-- Its line, a sorted set: the parked jobs by when they were enqueued. Who stands in it starts when all before him have
-- started, whichever worker asks.
local FIELDS, KEPT = {'f', 'since', 'open', 'pause', 'probe', 'pace', 'next'}, 86400

-- Whether nothing may start now: its breaker is open, and it is not time for a probe, or one is out.
local function is_dead(state, now)
  return state.open > 0 and math.max(state.open, state.probe) > now
end

local function load_destination(ours, name, now)
  local key = ours .. ':webhooks:breaker:' .. name
  local values, state = redis.call('HMGET', key, unpack(FIELDS)), {ours = ours, name = name, key = key}
  for i, field in ipairs(FIELDS) do state[field] = tonumber(values[i]) or 0 end
  state.line = ours .. ':webhooks:line:' .. name
  state.parked = redis.call('ZCARD', state.line)
  if state.parked == 0 then state.next = 0 end
  if state.open > now then
    state.next = math.max(state.next, state.open)
  elseif is_dead(state, now) and state.next < now + 0.5 then
    state.next = now + 1
  end
  return state
end

local function save_destination(state, now)
  local parked, known = state.ours .. ':webhooks:parked', state.ours .. ':webhooks:destinations'
  if state.parked == 0 and state.f == 0 and state.open == 0 then  -- nothing is known against it
    redis.call('DEL', state.key)
    redis.call('ZREM', parked, state.name)
    redis.call('ZREM', known, state.name)
    return
  end
  local words = {}
  for _, field in ipairs(FIELDS) do
    words[#words + 1], words[#words + 2] = field, string.format('%.6f', state[field])
  end
  redis.call('HSET', state.key, unpack(words))
  redis.call('EXPIRE', state.key, KEPT)
  redis.call('EXPIRE', state.line, KEPT)
  redis.call('ZADD', known, now, state.name)  -- those that have a hash, by their latest change
  if state.open > 0 then
    redis.call('ZADD', parked, state.open, state.name)  -- the open ones by their time: what pages show
  else
    redis.call('ZREM', parked, state.name)
  end
end

-- Puts a job into the line, by when it was enqueued, unless it stands there already. Answers its place, from 0.
local function park(state, id, enqueued)
  state.parked = state.parked + redis.call('ZADD', state.line, 'NX', enqueued, id)
  return redis.call('ZRANK', state.line, id)
end

-- When who stands at ``place`` may start, or ask again.
local function turn(state, place, soonest)
  return string.format('%.6f', math.max(state.next + place / state.pace, soonest))
end

