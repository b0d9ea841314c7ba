-- Pauses or resumes a schedule.
-- ARGV: RQ's prefix, schedule, its version, '1' to pause or '' to resume, next tick ('' = none).
-- Returns 1, or 0 if there is no such schedule, or not of this version.
local ours, name = ARGV[1] .. 'jobs:schedules:', ARGV[2]
local key, due = ours .. 'one:' .. name, ours .. 'due'
local version, paused = unpack(redis.call('HMGET', key, 'version', 'paused'))
if version ~= ARGV[3] then return 0 end
if ARGV[4] == '1' then
  redis.call('HSET', key, 'paused', '1')
  redis.call('ZADD', due, '+inf', name)
elseif paused then  -- one that is not paused keeps its next tick
  redis.call('HDEL', key, 'paused')
  redis.call('ZADD', due, ARGV[5] == '' and '+inf' or ARGV[5], name)
end
return 1
