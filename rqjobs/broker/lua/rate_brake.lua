-- Presses the brake: nobody calls until it is over. Each press after the last one was over doubles the wait.
-- KEYS: the brake. ARGV: the first wait, the longest wait, what the other side asked for (0 = nothing), microseconds.
-- Answers the wait.
local base, longest, asked = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local clock = redis.call('TIME')
local now = clock[1] * 1000000 + clock[2]
local brake = redis.call('HMGET', KEYS[1], 'until', 'pressed')
local over, pressed = tonumber(brake[1] or 0), tonumber(brake[2] or 0)
if over <= now then  -- calls that were under way together press it once
  over = now + math.min(longest, base * 2 ^ math.min(pressed, 30))
  pressed = pressed + 1
end
over = math.max(over, now + asked)
redis.call('HSET', KEYS[1], 'until', string.format('%.0f', over), 'pressed', pressed)
redis.call('PEXPIRE', KEYS[1], math.ceil((over - now + 2 * longest) / 1000))
return over - now
