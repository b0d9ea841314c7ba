-- Books the next moment at which one more call fits into any window of time.
-- KEYS: the log (a list: the moments of the last calls, newest last), the brake.
-- ARGV: limit, window, patience (all times in microseconds).
-- Answers: 1 (booked) or 0, the wait until that moment, how often the brake was pressed.
local limit, window, patience = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local clock = redis.call('TIME')
local now = clock[1] * 1000000 + clock[2]
local brake = redis.call('HMGET', KEYS[2], 'until', 'pressed')
local start = math.max(now, tonumber(brake[1] or 0))
local first = redis.call('LINDEX', KEYS[1], -limit)
if first then start = math.max(start, tonumber(first) + window) end
local wait = start - now
if wait > patience then return {0, wait, tonumber(brake[2] or 0)} end
redis.call('RPUSH', KEYS[1], string.format('%.0f', start))
redis.call('LTRIM', KEYS[1], -limit, -1)
redis.call('PEXPIRE', KEYS[1], math.ceil((wait + window) / 1000) + 1000)
return {1, wait, tonumber(brake[2] or 0)}
