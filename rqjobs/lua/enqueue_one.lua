-- Writes one new job that is to run at once, as enqueue.lua does for any jobs, in two thirds of its time.
-- ARGV: RQ's prefix, queue, id, then field, value, ... of the job's hash.
-- Answers 1, or 0 with nothing done because the id has been seen: enqueue.lua knows what that means.
local key, queue = ARGV[1] .. ':job:' .. ARGV[3], ARGV[1] .. ':queue:' .. ARGV[2]
if redis.call('EXISTS', key) == 1 then return 0 end
redis.call('RPUSH', queue, ARGV[3])  -- first: if that key is no list, nothing is written
redis.call('HSET', key, unpack(ARGV, 4))
redis.call('SADD', ARGV[1] .. ':queues', queue)
return 1
