-- Adds what ran to the running totals and to the counters of a minute.
-- ARGV: RQ's prefix, our prefix, the minute ('' = the present one by Redis' clock), how long a minute is kept (s), then
--   field, number, ...: added up; of a field that ends in ^ the larger number stays.
local totals, minute = ARGV[2] .. ':metrics', ARGV[3]
if minute == '' then minute = string.format('%d', math.floor(redis.call('TIME')[1] / 60)) end
minute = ARGV[2] .. ':minute:' .. minute
for i = 5, #ARGV, 2 do
  for _, key in ipairs({totals, minute}) do
    if string.sub(ARGV[i], -1) ~= '^' then
      redis.call('HINCRBY', key, ARGV[i], ARGV[i + 1])
    elseif (tonumber(redis.call('HGET', key, ARGV[i]) or '') or -1) < tonumber(ARGV[i + 1]) then
      redis.call('HSET', key, ARGV[i], ARGV[i + 1])
    end
  end
end
redis.call('EXPIRE', minute, ARGV[4])
return redis.status_reply('OK')
