-- Deletes the texts of reasons that no dead letter has (rqjobs/dead_letters/index.py).
-- ARGV: RQ's prefix, our prefix, lane, then the numbers of the reasons. Returns nothing.
local ours, lane, first_reason = ARGV[2], ARGV[3], 4
local reasons, texts = ours .. ':dead:reasons:' .. lane, ours .. ':dead:texts:' .. lane
for i = first_reason, #ARGV do
  local reason = ARGV[i]
  if redis.call('ZCOUNT', reasons, reason, reason) == 0 then redis.call('HDEL', texts, reason) end
end
