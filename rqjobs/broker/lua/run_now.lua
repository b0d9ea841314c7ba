-- Makes a delayed job due now, or puts a lost job (one that is in no list, so that it would never run) into its queue.
-- ARGV: RQ's prefix, job, queue. Returns 1 if it was either.
local prefix, id, queue = ARGV[1], ARGV[2], ARGV[3]
local key, list, delayed = prefix .. ':job:' .. id, prefix .. ':queue:' .. queue, prefix .. ':scheduled:' .. queue
local time = redis.call('TIME')
if redis.call('ZSCORE', delayed, id) then
  redis.call('ZADD', delayed, time[1] .. '.' .. string.format('%06d', tonumber(time[2])), id)
  return 1
end
local status = redis.call('HGET', key, 'status')
if status ~= 'queued' and status ~= 'scheduled' and status ~= 'started' then return 0 end
if redis.call('LPOS', list, id) or redis.call('LPOS', list .. ':intermediate', id) then return 0 end
if waits_in_group(prefix, prefix .. 'jobs', queue, id) then return 0 end
for _, entry in ipairs(redis.call('ZRANGE', prefix .. ':wip:' .. queue, 0, -1)) do
  if string.sub(entry, 1, #id + 1) == id .. ':' then return 0 end
end
redis.call('HSET', key, 'status', 'queued')
redis.pcall('SADD', prefix .. ':queues', list)
redis.call('RPUSH', list, id)
return 1
