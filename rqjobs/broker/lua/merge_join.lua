-- A change joins the others that wait for the same contact, and one of their jobs is chosen to apply them all.
-- KEYS: the changes (a hash: unit -> change, '_first', '_until'), the lock, the outcome of this unit.
-- ARGV: unit, change, window, how long the lock holds (milliseconds).
-- Answers the wait in milliseconds; 0: this unit is chosen (it holds the lock), -1: it has an outcome already.
local unit, window = ARGV[1], tonumber(ARGV[3])
local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
if redis.call('EXISTS', KEYS[3]) == 1 then return -1 end
redis.call('HSETNX', KEYS[1], unit, ARGV[2])
redis.call('HSETNX', KEYS[1], '_first', string.format('%.0f', now))
redis.call('PEXPIRE', KEYS[1], 7 * 86400000)
local owner = redis.call('GET', KEYS[2])
if owner and owner ~= unit then return 250 end
local times = redis.call('HMGET', KEYS[1], '_first', '_until')
local ready = math.max(tonumber(times[1]) + window, tonumber(times[2] or 0))
if ready > now then return ready - now end
redis.call('SET', KEYS[2], unit, 'PX', ARGV[4])
return 0
