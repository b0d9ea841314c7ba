-- Renews the leases of running jobs, as RQ's heartbeat does.
-- ARGV: RQ's prefix, lease (s), now (RQ's format), then for each: lane, id, execution
-- Answers the executions whose lease is gone: another worker has taken the job, or it was deleted.
local prefix, lease, iso = ARGV[1], tonumber(ARGV[2]), ARGV[3]
local time = redis.call('TIME')
local seconds, stamp = tonumber(time[1]), string.format('%d.%06d', time[1], time[2])
local lost = {}
for i = 4, #ARGV, 3 do
  local registry, id, execution = prefix .. ':wip:' .. ARGV[i], ARGV[i + 1], ARGV[i + 2]
  local member = id .. ':' .. execution
  if redis.call('ZSCORE', registry, member) then
    redis.call('ZADD', registry, 'XX', seconds + lease, member)
    redis.call('HSET', prefix .. ':execution:' .. member, 'last_heartbeat', stamp)
    redis.call('EXPIRE', prefix .. ':execution:' .. member, lease + 60)
    redis.call('ZADD', prefix .. ':executions:' .. id, 'XX', seconds + lease + 60, execution)
    redis.call('EXPIRE', prefix .. ':executions:' .. id, lease + 60)
    if redis.call('EXISTS', prefix .. ':job:' .. id) == 1 then
      redis.call('HSET', prefix .. ':job:' .. id, 'last_heartbeat', iso)
    end
  else
    lost[#lost + 1] = execution
  end
end
return lost
