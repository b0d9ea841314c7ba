-- Adds what ran to the running totals and to the counters of this minute.
-- ARGV: RQ's prefix, the totals' key, the minute's key, how long the minute is kept (s), field, number, ...
for i = 5, #ARGV, 2 do
  redis.call('HINCRBY', ARGV[2], ARGV[i], ARGV[i + 1])
  redis.call('HINCRBY', ARGV[3], ARGV[i], ARGV[i + 1])
end
redis.call('EXPIRE', ARGV[3], ARGV[4])
return redis.status_reply('OK')
