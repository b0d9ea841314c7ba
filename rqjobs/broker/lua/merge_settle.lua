-- Removes changes that have outcomes from the waiting ones, and releases the lock.
-- KEYS: the changes, the lock, then the outcome of each unit.
-- ARGV: the owner of the lock, 'until' for the others (milliseconds from now), then unit, outcome, unit, outcome, ...
-- An outcome of '' only removes the unit. Returns the number of changes that wait.
local changes, lock, FIRST_OUTCOME = KEYS[1], KEYS[2], 3
local owner, later, FIRST_UNIT = ARGV[1], tonumber(ARGV[2]), 3
local HOUR, WEEK = 3600, 7 * 86400
local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
for i = FIRST_UNIT, #ARGV, 2 do
  local unit, outcome = ARGV[i], ARGV[i + 1]
  redis.call('HDEL', changes, unit)
  local kept = unit == owner and HOUR or WEEK  -- another job may run much later, after a pause
  if outcome ~= '' then redis.call('SET', KEYS[FIRST_OUTCOME + (i - FIRST_UNIT) / 2], outcome, 'EX', kept) end
end
local waiting = redis.call('HLEN', changes)
  - redis.call('HEXISTS', changes, '_first') - redis.call('HEXISTS', changes, '_until')
if waiting == 0 then
  redis.call('DEL', changes)
else
  if #ARGV >= FIRST_UNIT then redis.call('HSET', changes, '_first', string.format('%.0f', now)) end
  redis.call('HSET', changes, '_until', string.format('%.0f', now + later))
end
if redis.call('GET', lock) == owner then redis.call('DEL', lock) end
return waiting
