-- The circuit breakers of webhooks, and which jobs of their lines may start; it stands behind line.lua.
-- ARGV: our prefix, the operation, and the operation's words. Times are durations: workers' clocks differ.
local ours, op, time = ARGV[1], ARGV[2], redis.call('TIME')
local now = tonumber(time[1]) + tonumber(time[2]) / 1000000
local EARLY, TOGETHER = 0.05, 0.02  -- seconds: so early is early enough; turns that are closer than this are one turn
local CATCH_UP, LATE = 0.5, 1  -- seconds: what is missed of the pace is made up; who is so late is given up

-- Judges those of ``jobs`` whose verdict is 'go' so far by one breaker. Only at the last one does a job that is not parked
-- need room.
local function judge(state, jobs, verdicts, room, is_last, silent, patience)
  local closed, waits, pace = state.open == 0, is_dead(state, now), state.pace
  local changed, window = false, math.max(1, pace * TOGETHER)
  for j, job in ipairs(jobs) do
    if verdicts[j] == 'go' then
      local id = job[1]
      local place = state.parked > 0 and redis.call('ZRANK', state.line, id)
      changed = changed or place or not closed
      if place and place > 0 and not waits and state.next + LATE <= now then  -- the first was deleted, or is stuck
        redis.call('ZREMRANGEBYRANK', state.line, 0, 0)
        state.parked, place, state.next = state.parked - 1, place - 1, now - LATE + 0.1
      end
      local first = not place or (place < window and state.next + place / pace <= now + EARLY)
      local free = not is_last and not place
      if first and not waits and (room > 0 or free or not closed) then
        if place then
          state.parked = state.parked - redis.call('ZREM', state.line, id)
          state.next = math.max(state.next, now - CATCH_UP) + 1 / pace
        end
        if not closed then
          verdicts[j], waits, state.probe, state.next = 'probe', true, now + patience, now + 1
        elseif not free then
          room = room - 1
        end
      elseif closed and not place and not silent then
        verdicts[j] = 'soon'
      else
        if closed and room <= 0 and state.next < now + 0.5 then state.next = now + 1 end
        local at = tonumber(turn(state, place or park(state, id, job[2]), now + TOGETHER))
        verdicts[j], changed = string.format('%.6f', at - now), true
      end
    end
  end
  if changed then save_destination(state, now) end
  return closed and state.parked == 0
end

-- ask: pace, seconds that a probe may take, then for each destination: room, whether it is silent, how many breakers,
-- their names, how many jobs, and for each job: id, when it was enqueued ('' = it comes last). Answers for each destination: 1 if nothing has
-- to be asked for a while; for each breaker 1 if it is failing; and for each job 'go', 'probe', 'soon' (no room, but
-- nothing is known against it), or in how many seconds to ask again.
if op == 'ask' then
  local pace, patience, i, answers = tonumber(ARGV[3]), tonumber(ARGV[4]), 5, {}
  while ARGV[i] do
    local room, silent, names = tonumber(ARGV[i]), ARGV[i + 1] == '1', tonumber(ARGV[i + 2])
    local at = i + 3 + names
    local jobs, verdicts, count = {}, {}, tonumber(ARGV[at])
    for j = 1, count do
      local enqueued = ARGV[at + 2 * j]
      jobs[j], verdicts[j] = {ARGV[at + 2 * j - 1], enqueued == '' and now or enqueued}, 'go'
    end
    local clear, failing = true, {}
    for n = 1, names do
      local state = load_destination(ours, ARGV[i + 2 + n], now)
      state.pace = pace
      failing[n] = state.f > 0 and 1 or 0
      clear = judge(state, jobs, verdicts, room, n == names, n == names and silent, patience) and clear
    end
    answers[#answers + 1] = {clear and 1 or 0, failing, verdicts}
    i = at + 2 * count + 1
  end
  return answers
end

local state = load_destination(ours, ARGV[3], now)

-- ok: a destination answered, or a connection to an origin was made. Answers whether that closed its breaker.
if op == 'ok' then
  local closed = state.open > 0 and 1 or 0
  if state.f > 0 or state.open > 0 then
    state.f, state.since, state.open, state.pause, state.probe = 0, 0, 0, 0, 0
    save_destination(state, now)
  end
  return closed
end

-- fail: how long ago the attempt began, whether it was the probe; failures and seconds that open; pause, longest pause.
-- Answers whether that opened the breaker (again).
local opened = 0
local began, probe, failures, after = now - tonumber(ARGV[4]), ARGV[5] == '1', tonumber(ARGV[6]), tonumber(ARGV[7])
local pause, longest = tonumber(ARGV[8]), tonumber(ARGV[9])
state.f = state.f + 1
state.since = state.since > 0 and math.min(state.since, began) or began
if state.open > 0 then
  if probe or began >= state.open then  -- in a process of its own a job does not know that it is the probe
    state.pause = math.min(state.pause * 2, longest)
    state.open, state.probe, opened = now + state.pause, 0, 1
  end
elseif state.f >= failures and now - state.since >= after then
  state.pause, state.open, state.probe, opened = pause, now + pause, 0, 1
end
save_destination(state, now)
redis.call('ZREMRANGEBYSCORE', ours .. ':webhooks:destinations', '-inf', now - KEPT)
return opened
