-- The circuit breakers of webhooks: decides which deliveries may start. destination.lua is put before it.
-- ARGV: our prefix, the operation, and its arguments. Times are durations: the clocks of workers differ.
--   ask   rate (jobs/s) at which parked deliveries resume, seconds that a trial delivery may take, then for each
--         destination: room, '1' if it is silent, number of breakers, their names, number of jobs, for each: id, time of
--         enqueueing ('' = it comes last). Returns for each destination: 1 if the next jobs need no request; for each
--         breaker 1 if it is failing; for each job 'go', 'probe' (it is the trial delivery), 'soon' (no room, but its
--         breakers are closed), or the seconds until the next check
--   ok    destination: it responded, or a connection to an origin was made. Returns 1 if that closed its breaker
--   fail  destination, seconds since the attempt began, '1' if it was the trial delivery, the failures and the seconds
--         after which it opens, pause, longest pause. Returns 1 if that opened the breaker (again)
local ours, op, time = ARGV[1], ARGV[2], redis.call('TIME')
local now = tonumber(time[1]) + tonumber(time[2]) / 1000000
local EARLY, TOGETHER = 0.05, 0.02  -- seconds: a job may start this early; jobs closer than this start together
local CATCH_UP, LATE = 0.5, 1  -- seconds of the rate that may be caught up; a parked job that is later is dropped

-- Applies one breaker to those of ``jobs`` whose verdict is still 'go'. Jobs that are not parked need room only at the
-- last breaker.
local function check_breaker(state, jobs, verdicts, room, is_last, silent, patience)
  local closed, waits, rate = state.open == 0, is_open(state, now), state.pace
  local changed, window = false, math.max(1, rate * TOGETHER)
  for j, job in ipairs(jobs) do
    if verdicts[j] == 'go' then
      local id = job[1]
      local place = state.parked > 0 and redis.call('ZRANK', state.waiting, id)
      changed = changed or place or not closed
      if place and place > 0 and not waits and state.next + LATE <= now then  -- the first job was deleted, or does not start
        redis.call('ZREMRANGEBYRANK', state.waiting, 0, 0)
        state.parked, place, state.next = state.parked - 1, place - 1, now - LATE + 0.1
      end
      local first = not place or (place < window and state.next + place / rate <= now + EARLY)
      local free = not is_last and not place
      if first and not waits and (room > 0 or free or not closed) then
        if place then
          state.parked = state.parked - redis.call('ZREM', state.waiting, id)
          state.next = math.max(state.next, now - CATCH_UP) + 1 / rate
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

local function ask()
  local rate, patience, i, answers = tonumber(ARGV[3]), tonumber(ARGV[4]), 5, {}
  while ARGV[i] do
    local room, silent, breaker_count = tonumber(ARGV[i]), ARGV[i + 1] == '1', tonumber(ARGV[i + 2])
    local first_breaker = i + 3
    local at = first_breaker + breaker_count
    local jobs, verdicts, job_count = {}, {}, tonumber(ARGV[at])
    for j = 1, job_count do
      local id, enqueued = ARGV[at + 2 * j - 1], ARGV[at + 2 * j]
      jobs[j], verdicts[j] = {id, enqueued == '' and now or enqueued}, 'go'
    end
    local clear, failing = true, {}
    for n = 1, breaker_count do
      local state, is_last = load_destination(ours, ARGV[first_breaker + n - 1], now), n == breaker_count
      state.pace = rate
      failing[n] = state.f > 0 and 1 or 0
      clear = check_breaker(state, jobs, verdicts, room, is_last, is_last and silent, patience) and clear
    end
    answers[#answers + 1] = {clear and 1 or 0, failing, verdicts}
    i = at + 2 * job_count + 1
  end
  return answers
end

local function report_answer(name)
  local state = load_destination(ours, name, now)
  local closed = state.open > 0 and 1 or 0
  if state.f > 0 or state.open > 0 then
    state.f, state.since, state.open, state.pause, state.probe = 0, 0, 0, 0, 0
    save_destination(state, now)
  end
  return closed
end

local function report_failure(name, began, was_trial, failures, after, pause, longest)
  local state, opened = load_destination(ours, name, now), 0
  state.f = state.f + 1
  state.since = state.since > 0 and math.min(state.since, began) or began
  if state.open > 0 then
    if was_trial or began >= state.open then  -- a job in a child process cannot report that it is the trial
      state.pause = math.min(state.pause * 2, longest)
      state.open, state.probe, opened = now + state.pause, 0, 1
    end
  elseif state.f >= failures and now - state.since >= after then
    state.pause, state.open, state.probe, opened = pause, now + pause, 0, 1
  end
  save_destination(state, now)
  redis.call('ZREMRANGEBYSCORE', ours .. ':webhooks:destinations', '-inf', now - KEPT)
  return opened
end

if op == 'ask' then return ask() end
if op == 'ok' then return report_answer(ARGV[3]) end
return report_failure(ARGV[3], now - tonumber(ARGV[4]), ARGV[5] == '1', tonumber(ARGV[6]), tonumber(ARGV[7]),
  tonumber(ARGV[8]), tonumber(ARGV[9]))
