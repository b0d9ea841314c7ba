-- Ends a call: its slot is free one window from now, and the average duration of calls is updated.
-- KEYS: the slots (a sorted set), the ends of the reservations (a hash).
-- ARGV: window, longest duration of a call (microseconds), the call's id. Returns nothing.
local slots, ends, window, longest, call = KEYS[1], KEYS[2], tonumber(ARGV[1]), tonumber(ARGV[2]), ARGV[3]
local clock = redis.call('TIME')
local now = clock[1] * 1000000 + clock[2]
local until_at_most = redis.call('ZSCORE', slots, call)
if not until_at_most then return end
redis.call('ZADD', slots, string.format('%.0f', now + window), call)
local took = now - (tonumber(until_at_most) - window - longest)
local usual = tonumber(redis.call('HGET', ends, 'took') or took)
redis.call('HSET', ends, 'took', string.format('%.0f', 0.9 * usual + 0.1 * took))
redis.call('PEXPIRE', ends, math.max(3600000, redis.call('PTTL', ends)))
