-- Gives the chosen job all changes that wait for the contact. They stay in Redis until they have outcomes, so a worker
-- that dies loses none of them.
-- KEYS: the changes, the lock, the outcome of this unit. ARGV: unit, change, time to live of the lock (milliseconds).
-- Returns {'done', outcome}, {'busy'} or {'mine', unit, change, unit, change, ...}
local changes, lock, outcome_key, unit, change, lock_ttl = KEYS[1], KEYS[2], KEYS[3], ARGV[1], ARGV[2], ARGV[3]
local WEEK, HOUR = 7 * 86400000, 3600
local outcome = redis.call('GET', outcome_key)
if outcome then
  redis.call('EXPIRE', outcome_key, HOUR)  -- kept in case the worker dies before RQ's records have it
  return {'done', outcome}
end
redis.call('HSETNX', changes, unit, change)
redis.call('PEXPIRE', changes, WEEK)
local owner = redis.call('GET', lock)
if owner and owner ~= unit then return {'busy'} end
redis.call('SET', lock, unit, 'PX', lock_ttl)
local answer, all = {'mine'}, redis.call('HGETALL', changes)
for i = 1, #all, 2 do
  if all[i] ~= '_first' and all[i] ~= '_until' then  -- no unit has such a name: each has an '@'
    answer[#answer + 1], answer[#answer + 2] = all[i], all[i + 1]
  end
end
return answer
