-- Replaces the data of a job unless it has changed since it was read.
-- ARGV: RQ's prefix, job, the data that was read, the new data, and its signature or ''. Returns 1 if it was replaced.
local key, old, new, signature = ARGV[1] .. ':job:' .. ARGV[2], ARGV[3], ARGV[4], ARGV[5]
if redis.call('HGET', key, 'data') ~= old then return 0 end
redis.call('HSET', key, 'data', new)
if signature ~= '' then redis.call('HSET', key, 'signature', signature) end
return 1
