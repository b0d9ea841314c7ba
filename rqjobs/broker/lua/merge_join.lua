-- Adds a change to the others that wait for the same contact, and chooses one of their jobs to apply them all.
-- KEYS: the changes (a hash: unit -> change, '_first', '_until'), the lock, the outcome of this unit.
-- ARGV: unit, change, window, time to live of the lock (milliseconds).
-- Returns the wait in milliseconds; 0: this unit is chosen (it holds the lock), -1: it has an outcome already.
local changes, lock, outcome = KEYS[1], KEYS[2], KEYS[3]
local unit, change, window, lock_ttl = ARGV[1], ARGV[2], tonumber(ARGV[3]), ARGV[4]
local WEEK, LOCKED_WAIT = 7 * 86400000, 250  -- milliseconds
local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
if redis.call('EXISTS', outcome) == 1 then return -1 end
redis.call('HSETNX', changes, unit, change)
redis.call('HSETNX', changes, '_first', string.format('%.0f', now))
redis.call('PEXPIRE', changes, WEEK)
local owner = redis.call('GET', lock)
if owner and owner ~= unit then return LOCKED_WAIT end
local times = redis.call('HMGET', changes, '_first', '_until')
local ready = math.max(tonumber(times[1]) + window, tonumber(times[2] or 0))
if ready > now then return ready - now end
redis.call('SET', lock, unit, 'PX', lock_ttl)
return 0
