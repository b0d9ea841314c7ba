-- Holds, for what goes neither through reserve.lua nor through finish.lua; it stands behind holds.lua.
-- ARGV: RQ's prefix, our prefix, the operation, queue, job, and the operation's arguments.
--   start                                  may this job run now? Returns seconds to wait, 0 to run; and 1 if it is a trial
--   end     how                            a run has ended: done, quiet, back (holds.lua)
--   away    scope, dependency, reason, stage  a run has found a dependency away. Returns seconds until the next trial; -1 if
--                                          it is the job's own failure, since others find the dependency answering
--   try                                    the next trials of the queue are due now; the job is ''. Returns how many
-- Returns {the number above, whether it is a trial, {changes for the log, as finish.lua's}}
local prefix, ours, op, queue, id = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5]
local time = redis.call('TIME')
local now = tonumber(time[1]) + tonumber(time[2]) / 1000000
local holds = open_holds(ours) or {}
local lanes, answer, trial = {}, 0, 0
for _, suffix in ipairs({':high', '', ':low'}) do lanes[#lanes + 1] = {name = queue .. suffix, queue = queue} end

if op == 'start' then
  local wait = 0
  for _, name in ipairs({queue, try('HGET', prefix .. ':job:' .. id, 'needs') or ''}) do
    local hold = holds[name]
    if hold and not hold.out[id] then
      local left = until_trial(prefix, hold, now)
      if left > 0 then wait = math.max(wait, left) else start_trial(hold, id, '', '', now) end
    end
    if hold and hold.out[id] then trial = 1 end
  end
  answer = wait
elseif op == 'end' then
  local how = ARGV[6]
  end_trials(prefix, ours, holds, queue, id, how, now)
elseif op == 'away' then
  if blames_wrongly(prefix, id) then
    end_trials(prefix, ours, holds, queue, id, 'quiet', now)
    save_holds(ours, holds)
    return {'-1', 0, {}}
  end
  local scope, dependency, reason, stage = ARGV[6], ARGV[7], ARGV[8], ARGV[9]
  local hold = find_away(holds, queue, scope, dependency, reason, stage, id, now)
  if hold.scope ~= '' then try('HSET', prefix .. ':job:' .. id, 'needs', hold.name) end
  answer = until_trial(prefix, hold, now)
elseif op == 'try' then
  for _, hold in pairs(holds) do
    if hold.queue == queue then
      hold.next, hold.wait, hold.changed, answer = now - 1, FIRST_WAIT, true, answer + 1
      if hold.scope ~= '' then wake_jobs(prefix, ours, hold) end
    end
  end
end

local changes = changes_of(prefix, ours, holds, lanes, now)
save_holds(ours, holds)
return {string.format('%.6f', answer), trial, changes}
