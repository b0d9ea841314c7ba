-- Replaces the data of a job unless it has changed since it was read.
-- ARGV: RQ's prefix, job, the data that was read, the new data, and its signature or ''. Answers 1 if it was replaced.
local key = ARGV[1] .. ':job:' .. ARGV[2]
if redis.call('HGET', key, 'data') ~= ARGV[3] then return 0 end
redis.call('HSET', key, 'data', ARGV[4])
if ARGV[5] ~= '' then redis.call('HSET', key, 'signature', ARGV[5]) end
return 1
