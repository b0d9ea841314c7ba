-- Deletes the texts of reasons that no dead letter has (rqjobs/dead_letters/index.py).
-- ARGV: RQ's prefix, our prefix, lane, then the numbers of the reasons.
local reasons, texts = ARGV[2] .. ':dead:reasons:' .. ARGV[3], ARGV[2] .. ':dead:texts:' .. ARGV[3]
for i = 4, #ARGV do
  if redis.call('ZCOUNT', reasons, ARGV[i], ARGV[i]) == 0 then redis.call('HDEL', texts, ARGV[i]) end
end
