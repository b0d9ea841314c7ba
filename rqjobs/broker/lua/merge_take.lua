-- The chosen job takes all changes that wait for the contact. They stay where they are until they have outcomes,
-- so a worker that dies loses none of them.
-- KEYS: the changes, the lock, the outcome of this unit. ARGV: unit, change, how long the lock holds (milliseconds).
-- Answers {'done', outcome}, {'busy'} or {'mine', unit, change, unit, change, ...}.
local outcome = redis.call('GET', KEYS[3])
if outcome then
  redis.call('EXPIRE', KEYS[3], 3600)  -- told; kept for the case that the worker dies before RQ hears of it
  return {'done', outcome}
end
redis.call('HSETNX', KEYS[1], ARGV[1], ARGV[2])
redis.call('PEXPIRE', KEYS[1], 7 * 86400000)
local owner = redis.call('GET', KEYS[2])
if owner and owner ~= ARGV[1] then return {'busy'} end
redis.call('SET', KEYS[2], ARGV[1], 'PX', ARGV[3])
local answer, all = {'mine'}, redis.call('HGETALL', KEYS[1])
for i = 1, #all, 2 do
  if all[i] ~= '_first' and all[i] ~= '_until' then  -- no unit is called so: each has an '@'
    answer[#answer + 1], answer[#answer + 2] = all[i], all[i + 1]
  end
end
return answer
