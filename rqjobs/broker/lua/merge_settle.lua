-- Changes that have outcomes leave the waiting ones, and the lock is given back.
-- KEYS: the changes, the lock, then the outcome of each unit.
-- ARGV: the owner of the lock, 'until' for the others (milliseconds from now), then unit, outcome, unit, outcome, ...
-- An outcome of '' only takes the unit out.
local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
for i = 3, #ARGV, 2 do
  redis.call('HDEL', KEYS[1], ARGV[i])
  local kept = ARGV[i] == ARGV[1] and 3600 or 7 * 86400  -- another job may run much later, after a pause
  if ARGV[i + 1] ~= '' then redis.call('SET', KEYS[3 + (i - 3) / 2], ARGV[i + 1], 'EX', kept) end
end
local waiting = redis.call('HLEN', KEYS[1])
  - redis.call('HEXISTS', KEYS[1], '_first') - redis.call('HEXISTS', KEYS[1], '_until')
if waiting == 0 then
  redis.call('DEL', KEYS[1])
else
  if #ARGV > 2 then redis.call('HSET', KEYS[1], '_first', string.format('%.0f', now)) end
  redis.call('HSET', KEYS[1], '_until', string.format('%.0f', now + tonumber(ARGV[2])))
end
if redis.call('GET', KEYS[2]) == ARGV[1] then redis.call('DEL', KEYS[2]) end
return waiting
