-- Adds the counts of jobs to the totals and to those of a minute. Returns OK.
-- ARGV: RQ's prefix, our prefix, the minute ('' = the current one by Redis' clock), time to live of a minute (s), then
--   field, number, ...: the number is added; for a field that ends in ^ the larger number is kept.
local ours, minute, ttl, first_field = ARGV[2], ARGV[3], ARGV[4], 5
local totals = ours .. ':metrics'
if minute == '' then minute = string.format('%d', math.floor(redis.call('TIME')[1] / 60)) end
minute = ours .. ':minute:' .. minute
for i = first_field, #ARGV, 2 do
  local field, number = ARGV[i], ARGV[i + 1]
  for _, key in ipairs({totals, minute}) do
    if string.sub(field, -1) ~= '^' then
      redis.call('HINCRBY', key, field, number)
    elseif (tonumber(redis.call('HGET', key, field) or '') or -1) < tonumber(number) then
      redis.call('HSET', key, field, number)
    end
  end
end
redis.call('EXPIRE', minute, ttl)
return redis.status_reply('OK')
