-- Writes one new job that is to run at once, as enqueue.lua does for any jobs, in two thirds of its time.
-- ARGV: RQ's prefix, queue, id, the call's sender and number (enqueue.lua), then field, value, ... of the job's hash.
-- Returns 1, or 0 with nothing done because the id is known: enqueue.lua decides what that means.
local key, queue, receipt = ARGV[1] .. ':job:' .. ARGV[3], ARGV[1] .. ':queue:' .. ARGV[2], ARGV[5]
if redis.call('EXISTS', key) == 1 then return 0 end
local length = redis.call('RPUSH', queue, ARGV[3])  -- first: if that key is no list, nothing is written
if redis.call('SET', ARGV[1] .. 'jobs:sent:' .. ARGV[4], receipt, 'EX', 3600, 'GET') == receipt then
  redis.call('RPOP', queue)  -- the call was sent again, and its job is done and deleted already
  return 1
end
redis.call('HSET', key, unpack(ARGV, 6))
if length == 1 then redis.call('SADD', ARGV[1] .. ':queues', queue) end  -- else the job before it did
return 1
