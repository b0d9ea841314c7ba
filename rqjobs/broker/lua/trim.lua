-- Keeps the newest jobs of a registry (finished or failed) and deletes up to 1,000 others with all their keys. Returns the
-- number of deleted jobs.
-- ARGV: RQ's prefix, the registry's name, the lane, the number to keep, our prefix, now (Unix seconds), the lane's queue.
local prefix, kind, lane, keep = ARGV[1], ARGV[2], ARGV[3], tonumber(ARGV[4])
local ours, now, queue = ARGV[5], tonumber(ARGV[6]), ARGV[7]
local registry = prefix .. ':' .. kind .. ':' .. lane
local waiters = ours .. ':waiters'
local excess = redis.call('ZCARD', registry) - keep
if excess <= 0 then return 0 end
local ids = redis.call('ZRANGE', registry, 0, math.min(excess, 1000) - 1)
local waited = redis.call('EXISTS', waiters) == 1
for _, id in ipairs(ids) do
  if kind == 'failed' then leave_dead(ours, lane, id) end
  local waits_until = waited and redis.call('ZSCORE', waiters, id)
  delete_job(prefix, id, waits_until and tonumber(waits_until) > now)
end
redis.call('ZREMRANGEBYRANK', registry, 0, #ids - 1)
if kind == 'failed' then try('HINCRBY', ours .. ':totals:' .. queue, 'dropped', #ids) end
return #ids
