-- The line before the calls: says when a unit of work may start, so that nobody waits inside a worker's slot.
-- KEYS: the places, the brake, the line (a sorted set: units by the moment booked), the ends (a hash, by priority).
-- ARGV: unit, cost (calls), priority (1 high, 2 normal, 3 low), limit, window, slack (microseconds).
-- Answers the wait; 0 means: start now.
local unit, cost, priority = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
local limit, window, slack = tonumber(ARGV[4]), tonumber(ARGV[5]), tonumber(ARGV[6])
local clock = redis.call('TIME')
local now = clock[1] * 1000000 + clock[2]
local open = math.max(now, tonumber(redis.call('HGET', KEYS[2], 'until') or 0))
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now)
if redis.call('ZCARD', KEYS[1]) >= limit then
  local first = redis.call('ZRANGE', KEYS[1], 0, 0, 'WITHSCORES')
  open = math.max(open, math.min(tonumber(first[2]), now + window))
end
local booked = tonumber(redis.call('ZSCORE', KEYS[3], unit) or 0)
if booked > now + slack then  -- too early: come back when it is your turn
  return booked - now
end
local took = tonumber(redis.call('HGET', KEYS[4], 'took') or 0)  -- a place is held for this long as well
local lasts = cost * (window + took) / limit
local function stand_behind(ends)  -- and be the new end
  local start = open
  for _, rank in ipairs(ends) do
    start = math.max(start, tonumber(redis.call('HGET', KEYS[4], rank) or 0))
  end
  redis.call('HSET', KEYS[4], ends[#ends], string.format('%.0f', start + lasts))
  redis.call('PEXPIRE', KEYS[4], math.ceil((start - now) / 1000) + 3600000)
  return start
end
local start = open
if booked == 0 then
  local ends = {}
  for rank = 1, priority do ends[rank] = rank end  -- behind what is as urgent or more
  start = stand_behind(ends)
elseif open > now + slack then  -- its turn has come, and nothing goes: behind the others in this plight
  start = stand_behind({'again'})
end
if start <= now + slack then
  redis.call('ZREM', KEYS[3], unit)
  return 0
end
redis.call('ZREMRANGEBYSCORE', KEYS[3], '-inf', now - 600000000)  -- units that never came back
redis.call('ZADD', KEYS[3], string.format('%.0f', start), unit)
redis.call('PEXPIRE', KEYS[3], math.ceil((start - now) / 1000) + 3600000)
return start - now
