-- Keeps the newest jobs of a registry (finished or failed) and deletes the others whole.
-- ARGV: RQ's prefix, the registry's name, the lane, how many to keep, our prefix, now (unix seconds), the lane's queue.
local prefix, registry, keep, ours = ARGV[1], ARGV[1] .. ':' .. ARGV[2] .. ':' .. ARGV[3], tonumber(ARGV[4]), ARGV[5]
local waiters = ours .. ':waiters'
local excess = redis.call('ZCARD', registry) - keep
if excess <= 0 then return 0 end
local ids = redis.call('ZRANGE', registry, 0, math.min(excess, 1000) - 1)
local waited = redis.call('EXISTS', waiters) == 1
for _, id in ipairs(ids) do
  if ARGV[2] == 'failed' then leave_dead(ours, ARGV[3], id) end
  redis.call('DEL', prefix .. ':job:' .. id, prefix .. ':job:' .. id .. ':dependents',
             prefix .. ':job::' .. id .. ':dependencies', prefix .. ':executions:' .. id)
  local results = prefix .. ':results:' .. id
  local until_ = waited and redis.call('ZSCORE', waiters, id)
  if until_ and tonumber(until_) > tonumber(ARGV[6]) then
    redis.call('EXPIRE', results, 60)
  else
    redis.call('DEL', results)
  end
end
redis.call('ZREMRANGEBYRANK', registry, 0, #ids - 1)
if ARGV[2] == 'failed' then redis.pcall('HINCRBY', ours .. ':totals:' .. ARGV[7], 'dropped', #ids) end
return #ids
