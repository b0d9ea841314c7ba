-- Takes a slot for one call, if one is free.
-- KEYS: the slots (a sorted set: call -> the time at which its slot is free again), the cooldown (a hash).
-- ARGV: limit, window, longest duration of a call (microseconds), the call's id.
-- Returns {1 (taken) or 0, the wait until the next try, the number of cooldowns since the last success}
local slots, cooldown, call = KEYS[1], KEYS[2], ARGV[4]
local limit, window, longest = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local clock = redis.call('TIME')
local now = clock[1] * 1000000 + clock[2]
local fields = redis.call('HMGET', cooldown, 'until', 'pressed')
local pressed, wait = tonumber(fields[2] or 0), tonumber(fields[1] or 0) - now
if wait > 0 then return {0, wait, pressed} end
redis.call('ZREMRANGEBYSCORE', slots, '-inf', now)
if redis.call('ZCARD', slots) >= limit then
  local first = redis.call('ZRANGE', slots, 0, 0, 'WITHSCORES')
  return {0, math.min(tonumber(first[2]) - now, window), pressed}
end
redis.call('ZADD', slots, string.format('%.0f', now + longest + window), call)
redis.call('PEXPIRE', slots, math.ceil((longest + window) / 1000) + 1000)
return {1, 0, pressed}
