-- Renews the worker's heartbeat and the leases of its jobs, as RQ's heartbeats do.
-- ARGV: RQ's prefix, worker, time to live of its record (s), lease (s), now (RQ's format), then for each job:
--   lane, id, execution
-- Returns {1 if the worker's record exists, the time by Redis' clock (s), executions whose lease is lost: another worker
--   has claimed the job, or it was deleted}
local prefix, worker, ttl, lease, iso = ARGV[1], ARGV[2], ARGV[3], tonumber(ARGV[4]), ARGV[5]
local record = prefix .. ':worker:' .. worker
local time = redis.call('TIME')
local seconds, stamp = tonumber(time[1]), string.format('%d.%06d', time[1], time[2])
redis.call('EXPIRE', record .. ':executions', ttl)  -- a write that a full Redis allows, and then the others too
local response = {redis.call('HEXISTS', record, 'birth'), stamp}
if response[1] == 1 then
  redis.call('HSET', record, 'last_heartbeat', iso, 'rqjobs_seen', seconds)
  redis.call('EXPIRE', record, ttl)
end
for i = 6, #ARGV, 3 do
  local lane, id, execution = ARGV[i], ARGV[i + 1], ARGV[i + 2]
  local registry = prefix .. ':wip:' .. lane
  local member = id .. ':' .. execution
  local expires = try('ZSCORE', registry, member)
  if expires == false then  -- nil means a registry of the wrong type, not a lost lease
    response[#response + 1] = execution
  elseif expires then
    redis.call('ZADD', registry, 'XX', seconds + lease, member)
    local run = prefix .. ':execution:' .. member
    if redis.call('HSETNX', run, 'id', execution) == 1 then  -- reserve.lua does not write it for a job that may be short
      redis.call('HSET', run, 'job_id', id, 'created_at', stamp, 'worker_name', worker)
    end
    redis.call('HSET', run, 'last_heartbeat', stamp)
    redis.call('EXPIRE', run, lease + 60)
    try('ZADD', prefix .. ':executions:' .. id, seconds + lease + 60, execution)
    redis.call('EXPIRE', prefix .. ':executions:' .. id, lease + 60)
    if redis.call('EXISTS', prefix .. ':job:' .. id) == 1 then
      try('HSET', prefix .. ':job:' .. id, 'last_heartbeat', iso)
    end
  end
end
return response
