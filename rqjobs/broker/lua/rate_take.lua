-- Takes a place for one call, if one of them is free.
-- KEYS: the places (a sorted set: call -> the moment at which its place is free again), the brake.
-- ARGV: limit, window, how long a call lasts at most (microseconds), the call's id.
-- Answers: 1 (taken) or 0, the wait until the next try makes sense, how often the brake was pressed.
local limit, window, longest = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local clock = redis.call('TIME')
local now = clock[1] * 1000000 + clock[2]
local brake = redis.call('HMGET', KEYS[2], 'until', 'pressed')
local pressed, wait = tonumber(brake[2] or 0), tonumber(brake[1] or 0) - now
if wait > 0 then return {0, wait, pressed} end
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now)
if redis.call('ZCARD', KEYS[1]) >= limit then
  local first = redis.call('ZRANGE', KEYS[1], 0, 0, 'WITHSCORES')
  return {0, math.min(tonumber(first[2]) - now, window), pressed}
end
redis.call('ZADD', KEYS[1], string.format('%.0f', now + longest + window), ARGV[4])
redis.call('PEXPIRE', KEYS[1], math.ceil((longest + window) / 1000) + 1000)
return {1, 0, pressed}
