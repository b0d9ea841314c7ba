-- A call has its answer: its place is free again one window from now, and how long calls take is remembered.
-- KEYS: the places, the ends of the line (a hash). ARGV: window, how long a call lasts at most, the call's id.
local clock = redis.call('TIME')
local now = clock[1] * 1000000 + clock[2]
local held = redis.call('ZSCORE', KEYS[1], ARGV[3])
if not held then return end
redis.call('ZADD', KEYS[1], string.format('%.0f', now + tonumber(ARGV[1])), ARGV[3])
local took = now - (tonumber(held) - tonumber(ARGV[1]) - tonumber(ARGV[2]))
local usual = tonumber(redis.call('HGET', KEYS[2], 'took') or took)
redis.call('HSET', KEYS[2], 'took', string.format('%.0f', 0.9 * usual + 0.1 * took))
redis.call('PEXPIRE', KEYS[2], math.max(3600000, redis.call('PTTL', KEYS[2])))
