-- Writes one new job that is to run at once, as enqueue.lua does for any jobs, in two thirds of its time.
-- ARGV: RQ's prefix, queue, id, the call's sender and number (enqueue.lua), then field, value, ... of the job's hash.
-- Returns 1, or 0 with nothing done because the id is known: enqueue.lua decides what that means.
local redis, ARGV = redis, ARGV  -- a local is found sooner than a global
local prefix, queue, id, sender, call, FIRST_FIELD = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5], 6
local key, list = prefix .. ':job:' .. id, prefix .. ':queue:' .. queue
if redis.call('EXISTS', key) == 1 then return 0 end
local length = redis.call('RPUSH', list, id)  -- first: if that key is no list, nothing is written
if redis.call('SET', prefix .. 'jobs:sent:' .. sender, call, 'EX', 3600, 'GET') == call then
  redis.call('RPOP', list)  -- the call was sent again, and its job is done and deleted already
  return 1
end
redis.call('HSET', key, unpack(ARGV, FIRST_FIELD))
if length == 1 then redis.pcall('SADD', prefix .. ':queues', list) end  -- else the job before it did
return 1
