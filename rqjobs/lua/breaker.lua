-- The circuit breaker of webhook destinations, and the order of the deliveries that are parked for them.
-- ARGV: our prefix, the operation, now (Unix seconds), and the operation's words.
--
-- A destination's hash: f, since (failures in a row, and since when); open (until when; 0 is closed), pause (how
-- long it was opened for), probe (until when one delivery is out to find out); pace (jobs/s, for reserve.lua); seq, low
-- (the next rank, the lowest one still parked); base, head (rank `head` starts at `base`, the others behind it, paced).
-- A parked job keeps its rank. Its slot only ever moves to later, so whoever asks is never late, and jobs start in
-- the order in which they were first parked.
local prefix, op, now = ARGV[1] .. ':webhooks:breaker:', ARGV[2], tonumber(ARGV[3])
local KEPT = 86400
local PARKED = ARGV[1] .. ':webhooks:parked'  -- the open ones by their time: what pages show
local KNOWN = ARGV[1] .. ':webhooks:destinations'  -- those that have a hash, by their latest change
local FIELDS = {'f', 'since', 'open', 'pause', 'probe', 'pace', 'seq', 'low', 'base', 'head'}

local function load(name)
  local values, state = redis.call('HMGET', prefix .. name, unpack(FIELDS)), {}
  for i, field in ipairs(FIELDS) do state[field] = tonumber(values[i]) or 0 end
  return state
end

local function forget(name)
  redis.call('DEL', prefix .. name)
  redis.call('ZREM', PARKED, name)
  redis.call('ZREM', KNOWN, name)
end

local function save(name, state)
  local words = {}
  for _, field in ipairs(FIELDS) do
    words[#words + 1] = field
    words[#words + 1] = string.format('%.6f', state[field])
  end
  redis.call('HSET', prefix .. name, unpack(words))
  redis.call('EXPIRE', prefix .. name, KEPT)
  redis.call('ZADD', KNOWN, now, name)
  if state.open > 0 then
    redis.call('ZADD', PARKED, state.open, name)
  else
    redis.call('ZREM', PARKED, name)
  end
end

local function not_before(state, moment, pace)
  if moment <= state.base then return end
  if moment - state.base >= (state.low - state.head) / pace then state.head = state.low end
  state.base = moment
end

-- ask: pace, seconds that a probe may take, then for each destination: name, room, whether it is silent, count, job
-- ids. Answers for each destination: 1 if nothing has to be asked for a while, whether it is failing, and for each
-- job 'go', 'probe', 'soon' (no room, but nothing is known against it), or the moment to ask again.
if op == 'ask' then
  local pace, patience, i, answers = tonumber(ARGV[4]), tonumber(ARGV[5]), 6, {}
  while ARGV[i] do
    local name, room, silent, count = ARGV[i], tonumber(ARGV[i + 1]), ARGV[i + 2] == '1', tonumber(ARGV[i + 3])
    i = i + 4
    local ranks = prefix .. name .. ':ranks'
    local state, parked, changed = load(name), redis.call('HLEN', ranks), false
    state.pace = pace
    if parked == 0 then state.seq, state.low, state.head, state.base = 0, 0, 0, 0 end
    local probing = state.open > 0 and state.open <= now and state.probe <= now
    if state.open > now then
      not_before(state, state.open, pace)
    elseif state.open > 0 and state.base < now + 0.5 then
      not_before(state, now + 1, pace)
    end
    local ids, verdicts, new = {unpack(ARGV, i, i + count - 1)}, {}, {}
    local known = parked > 0 and redis.call('HMGET', ranks, unpack(ids)) or {}
    for j, id in ipairs(ids) do
      local rank = tonumber(known[j] or nil)
      local turn = not rank or state.base + (rank - state.head) / pace <= now + 0.05
      if probing or (state.open == 0 and room > 0 and turn) then
        if probing then
          state.probe, probing, changed = now + patience, false, true
          verdicts[j] = 'probe'
        else
          room = room - 1
          verdicts[j] = 'go'
        end
        if rank then
          redis.call('HDEL', ranks, id)
          state.low, parked, changed = math.max(state.low, rank + 1), parked - 1, true
        end
      elseif state.open == 0 and not rank and not silent then
        verdicts[j] = 'soon'
      else
        if state.open == 0 and turn and state.base < now + 0.5 then not_before(state, now + 1, pace) end
        if not rank then
          rank = state.seq
          state.seq, parked = rank + 1, parked + 1
          new[#new + 1], new[#new + 2] = id, rank
        end
        changed = true
        verdicts[j] = string.format('%.6f', math.max(state.base + (rank - state.head) / pace, now + 0.01))
      end
    end
    if #new > 0 then redis.call('HSET', ranks, unpack(new)) end
    i = i + count
    if changed and parked == 0 and state.f == 0 and state.open == 0 then
      forget(name)
    elseif changed then
      save(name, state)
    end
    if parked > 0 then redis.call('EXPIRE', ranks, KEPT) end
    answers[#answers + 1] = {state.open == 0 and parked == 0 and 1 or 0, state.f > 0 and 1 or 0, verdicts}
  end
  return answers
end

local name = ARGV[4]
local state = load(name)

-- ok: a destination answered. Answers whether that closed its breaker.
if op == 'ok' then
  local closed = state.open > 0 and 1 or 0
  if state.f > 0 or state.open > 0 then
    state.f, state.since, state.open, state.pause, state.probe = 0, 0, 0, 0, 0
    if redis.call('EXISTS', prefix .. name .. ':ranks') == 0 then
      forget(name)
    else
      save(name, state)
    end
  end
  return closed
end

-- fail: when the attempt began, whether it was the probe; failures and seconds that open; pause, longest pause.
-- Answers whether that opened the breaker (again).
local opened = 0
local began, probe, failures, after = tonumber(ARGV[5]), ARGV[6] == '1', tonumber(ARGV[7]), tonumber(ARGV[8])
local pause, longest = tonumber(ARGV[9]), tonumber(ARGV[10])
state.f = state.f + 1
state.since = state.since > 0 and math.min(state.since, began) or began
if state.open > 0 then
  if probe then
    state.pause = math.min(state.pause * 2, longest)
    state.open, state.probe, opened = now + state.pause, 0, 1
  end
elseif state.f >= failures and now - state.since >= after then
  state.pause, state.open, state.probe, opened = pause, now + pause, 0, 1
end
save(name, state)
redis.call('ZREMRANGEBYSCORE', KNOWN, '-inf', now - KEPT)
return opened
