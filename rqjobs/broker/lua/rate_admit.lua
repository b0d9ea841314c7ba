-- Reserves the time in which a unit of work may start, so that no job waits for a call inside a worker's slot.
-- KEYS: the slots (a sorted set), the cooldown (a hash), the reservations (a sorted set: units by the time reserved), the
--   ends of the reservations (a hash, by priority).
-- ARGV: unit, cost (calls), priority (1 high, 2 normal, 3 low), limit, window, slack (microseconds).
-- Returns the wait; 0: start now.
local slots, cooldown, reservations, ends = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local unit, cost, priority = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
local limit, window, slack = tonumber(ARGV[4]), tonumber(ARGV[5]), tonumber(ARGV[6])
local MAX_LATE = 600000000  -- microseconds: a unit that is later than this is dropped
local clock = redis.call('TIME')
local now = clock[1] * 1000000 + clock[2]
local open = math.max(now, tonumber(redis.call('HGET', cooldown, 'until') or 0))
redis.call('ZREMRANGEBYSCORE', slots, '-inf', now)
if redis.call('ZCARD', slots) >= limit then
  local first = redis.call('ZRANGE', slots, 0, 0, 'WITHSCORES')
  open = math.max(open, math.min(tonumber(first[2]), now + window))
end
local reserved = tonumber(redis.call('ZSCORE', reservations, unit) or 0)
if reserved > now + slack then  -- too early
  return reserved - now
end
local took = tonumber(redis.call('HGET', ends, 'took') or 0)  -- a slot is in use for this long as well
local lasts = cost * (window + took) / limit

-- Reserves the time after the last reservations of these ranks, and is the last of the last rank.
local function reserve_after(ranks)
  local start = open
  for _, rank in ipairs(ranks) do
    start = math.max(start, tonumber(redis.call('HGET', ends, rank) or 0))
  end
  redis.call('HSET', ends, ranks[#ranks], string.format('%.0f', start + lasts))
  redis.call('PEXPIRE', ends, math.ceil((start - now) / 1000) + 3600000)
  return start
end

local start = open
if reserved == 0 then
  local ranks = {}
  for rank = 1, priority do ranks[rank] = rank end  -- after units of the same or a higher priority
  start = reserve_after(ranks)
elseif open > now + slack then  -- its time has come, but no call may start: after other units in the same situation
  start = reserve_after({'again'})
end
if start <= now + slack then
  redis.call('ZREM', reservations, unit)
  return 0
end
redis.call('ZREMRANGEBYSCORE', reservations, '-inf', now - MAX_LATE)
redis.call('ZADD', reservations, string.format('%.0f', start), unit)
redis.call('PEXPIRE', reservations, math.ceil((start - now) / 1000) + 3600000)
return start - now
