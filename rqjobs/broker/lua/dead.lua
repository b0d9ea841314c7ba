-- The index of dead letters (rqjobs/dead_letters/index.py). No error of its keys may stop a job.
local function leave_dead(ours, lane, id)
  local reasons = ours .. ':dead:reasons:' .. lane
  redis.pcall('ZREM', ours .. ':dead:groups:' .. lane, id)
  local reason = redis.pcall('ZSCORE', reasons, id)
  if type(reason) ~= 'string' then return end
  redis.pcall('ZREM', reasons, id)
  if redis.pcall('ZCOUNT', reasons, reason, reason) == 0 then
    redis.pcall('HDEL', ours .. ':dead:texts:' .. lane, reason)
  end
end

local function join_dead(ours, lane, id, entry)
  local cause, reason, text = string.match(entry, '^(%d+) (%d+) (.*)')
  leave_dead(ours, lane, id)
  redis.pcall('ZADD', ours .. ':dead:groups:' .. lane, cause, id)
  redis.pcall('ZADD', ours .. ':dead:reasons:' .. lane, reason, id)
  redis.pcall('HSET', ours .. ':dead:texts:' .. lane, reason, text)
end

