-- Adds or replaces a schedule. A replaced one keeps its pause and history, and its next tick if its times are the same.
-- ARGV: RQ's prefix, schedule, next tick ('' = none), its times, then field, value, ... of its hash ('times' included).
-- Returns nothing.
local ours, name, next_tick, times, FIRST_FIELD = ARGV[1] .. 'jobs:schedules:', ARGV[2], ARGV[3], ARGV[4], 5
local key, due = ours .. 'one:' .. name, ours .. 'due'
local old_times, paused = unpack(redis.call('HMGET', key, 'times', 'paused'))
if old_times ~= times or not redis.call('ZSCORE', due, name) then
  redis.call('ZADD', due, (paused or next_tick == '') and '+inf' or next_tick, name)
end
redis.call('HSET', key, unpack(ARGV, FIRST_FIELD))
