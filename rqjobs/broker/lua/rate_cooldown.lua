-- Starts a cooldown: no call starts before its end. Each one after the end of the last doubles the wait.
-- KEYS: the cooldown (a hash). ARGV: the first wait, the longest wait, what the API asked for (0 = nothing), microseconds.
-- Returns the wait.
local cooldown, first, longest, asked = KEYS[1], tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local clock = redis.call('TIME')
local now = clock[1] * 1000000 + clock[2]
local fields = redis.call('HMGET', cooldown, 'until', 'pressed')
local over, pressed = tonumber(fields[1] or 0), tonumber(fields[2] or 0)
if over <= now then  -- concurrent calls count once
  over = now + math.min(longest, first * 2 ^ math.min(pressed, 30))
  pressed = pressed + 1
end
over = math.max(over, now + asked)
redis.call('HSET', cooldown, 'until', string.format('%.0f', over), 'pressed', pressed)
redis.call('PEXPIRE', cooldown, math.ceil((over - now + 2 * longest) / 1000))
return over - now
