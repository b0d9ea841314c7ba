-- Pauses or resumes a schedule.
-- ARGV: RQ's prefix, schedule, its version, '1' to pause or '' to resume, next tick ('' = none).
-- Returns 1, or 0 if there is no such schedule, or not of this version.
local ours, name, its_version, pauses, next_tick = ARGV[1] .. 'jobs:schedules:', ARGV[2], ARGV[3], ARGV[4] == '1', ARGV[5]
local key, due = ours .. 'one:' .. name, ours .. 'due'
local version, paused = unpack(redis.call('HMGET', key, 'version', 'paused'))
if version ~= its_version then return 0 end
if pauses then
  redis.call('HSET', key, 'paused', '1')
  redis.call('ZADD', due, '+inf', name)
elseif paused then  -- one that is not paused keeps its next tick
  redis.call('HDEL', key, 'paused')
  redis.call('ZADD', due, next_tick == '' and '+inf' or next_tick, name)
end
return 1
