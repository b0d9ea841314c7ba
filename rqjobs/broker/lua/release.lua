-- Enqueues the dependents whose dependencies are done: RQ moves them to the ready registry, and enqueues them afterwards.
-- ARGV: RQ's prefix, now (RQ's format), the timeout of a job without one (s), most jobs of a lane, lane, ...
-- Returns {'1' if a lane may have more, lane, id, ... of jobs with RQ's own rate limit, for RQ's own methods}
local prefix, iso, timeout, most, first_lane = ARGV[1], ARGV[2], ARGV[3], tonumber(ARGV[4]), 5
local response = {'0'}
redis.call('DEL', prefix .. ':ready')  -- this key never exists: a write that a full Redis allows, and then the others too
for i = first_lane, #ARGV do
  local lane = ARGV[i]
  local gone = 0
  for _, id in ipairs(try('ZRANGE', prefix .. ':ready:' .. lane, 0, most - 1) or {}) do
    local moved, enqueued = pcall(enqueue_ready, prefix, iso, timeout, lane, id)
    if moved and enqueued then
      gone = gone + 1
    elseif moved and enqueued == false then
      response[#response + 1], response[#response + 2] = lane, id
    end
  end
  if gone == most then response[1] = '1' end
end
return response
