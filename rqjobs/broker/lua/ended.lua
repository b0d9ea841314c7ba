-- A part of the transaction in which RQ's own methods write the outcome of a job: counts it in the totals, and moves the
-- dependents of a failed job. RQ moves them in a second transaction, before which a killed worker would leave them for ever.
-- ARGV: RQ's prefix, our prefix, now (RQ's format), the timeout of a job without one (s), the job's queue,
--   'completed', 'failed' or 'retried', its id ('' = RQ moves the dependents in this transaction, or it has none), its batch ('' = none), its id,
--   how long a job has the slot of its group (finish.lua)
local prefix, ours, iso, timeout, queue, total, parent = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5], ARGV[6], ARGV[7]
local batch, job, slot = ARGV[8], ARGV[9], ARGV[10]
try('HINCRBY', ours .. ':totals:' .. queue, total, 1)
if batch ~= '' and total == 'completed' then members_done(prefix, ours, batch, {job}) end
if batch ~= '' and total == 'failed' then member_dead(prefix, ours, batch, job) end

local function met(id)
  for _, other in ipairs(redis.call('SMEMBERS', prefix .. ':job::' .. id .. ':dependencies')) do
    local status = redis.call('HGET', prefix .. ':job:' .. other, 'status')
    if status and status ~= 'finished' and status ~= 'failed' then return false end
  end
  return true
end

local function release(dependents, id)
  local key = prefix .. ':job:' .. id
  local job = redis.call('HMGET', key, 'status', 'allow_dependency_failures', 'origin')
  if job[1] ~= 'deferred' or job[2] ~= '1' or not job[3] or not met(id) then return end
  redis.call('HSET', key, 'status', 'ready_to_enqueue')
  redis.call('ZADD', prefix .. ':ready:' .. job[3], redis.call('TIME')[1], id)
  redis.call('ZREM', prefix .. ':deferred:' .. job[3], id)
  redis.call('SREM', dependents, id)
  enqueue_ready(prefix, iso, timeout, job[3], id)
end

if parent ~= '' and redis.call('HGET', prefix .. ':job:' .. parent, 'status') == 'failed' then
  local dependents = prefix .. ':job:' .. parent .. ':dependents'
  for _, id in ipairs(try('SMEMBERS', dependents) or {}) do pcall(release, dependents, id) end
end
local group = (slot ~= 'job' or total ~= 'retried') and group_of(prefix, job)
if group then pcall(free_slot, ours, queue, group, job) end
return redis.status_reply('OK')
