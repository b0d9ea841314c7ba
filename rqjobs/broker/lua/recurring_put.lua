-- Adds or replaces a schedule. One whose times stay the same keeps its next tick; a pause and the history stay as well.
-- ARGV: RQ's prefix, schedule, next tick ('' = none), its times, then field, value, ... of its hash ('times' included).
local ours, name = ARGV[1] .. 'jobs:schedules:', ARGV[2]
local key, due = ours .. 'one:' .. name, ours .. 'due'
local times, paused = unpack(redis.call('HMGET', key, 'times', 'paused'))
if times ~= ARGV[4] or not redis.call('ZSCORE', due, name) then
  redis.call('ZADD', due, (paused or ARGV[3] == '') and '+inf' or ARGV[3], name)
end
redis.call('HSET', key, unpack(ARGV, 5))
