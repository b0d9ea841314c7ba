-- Claims one tick of a schedule in one step: writes its job as enqueue.lua does, or none if the tick is skipped, sets the
-- next tick, and records the result. Only one of several callers gets the tick.
-- ARGV: RQ's prefix, schedule, its version, tick in Unix seconds ('' = run now by a user), the next tick ('' = none),
--   job id ('' = skip the tick), why it is skipped, the last of the ticks skipped with it ('' = only this one),
--   created_at, seconds that the job waits before it runs ('' = none), the job's meta
-- Returns {'enqueued' or 'skipped', seconds that the tick is late, why it is skipped}; {'early', seconds until the tick}
--   before its time; {'gone'} if the schedule has changed, or another caller has claimed the tick.
local prefix, name, its_version, tick, next_tick, job_id = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5], ARGV[6]
local reason, last_skipped, created_at, wait, meta = ARGV[7], ARGV[8], ARGV[9], ARGV[10], ARGV[11]
local ours = prefix .. 'jobs:schedules:'
local key, due = ours .. 'one:' .. name, ours .. 'due'
local version, lane, fields, data, description, overlap, last = unpack(
  redis.call('HMGET', key, 'version', 'lane', 'fields', 'data', 'description', 'overlap', 'last'))
if version ~= its_version then return {'gone'} end
local time = redis.call('TIME')
local now, late = tonumber(time[1]) + tonumber(time[2]) / 1000000, 0
if tick ~= '' then
  local score = redis.call('ZSCORE', due, name)
  if not score or tonumber(score) ~= tonumber(tick) then return {'gone'} end
  late = now - tonumber(tick)
  if late < 0 then return {'early', string.format('%.6f', -late)} end
elseif redis.call('EXISTS', prefix .. ':job:' .. job_id) == 1 then  -- the call was sent again
  return {'enqueued', '0', ''}
end

if job_id ~= '' and tick ~= '' and overlap == 'skip' and last then
  local status = redis.call('HGET', prefix .. ':job:' .. last, 'status')
  local names = {queued = 'waits', started = 'runs', scheduled = 'is delayed', deferred = 'waits', rate_limited = 'waits',
                 ready_to_enqueue = 'waits'}
  if names[status] then
    job_id, reason = '', 'job ' .. last .. ' of an earlier tick still ' .. names[status]
  end
end

if job_id ~= '' then
  local queue = prefix .. (wait == '' and ':queue:' or ':scheduled:') .. lane
  redis.call(wait == '' and 'LLEN' or 'ZCARD', queue)  -- raises for a key of the wrong type, before anything is written
  redis.call('HSET', prefix .. ':job:' .. job_id, 'data', data, 'created_at', created_at, 'description', description,
             'meta', meta, unpack(cjson.decode(fields)))
  redis.pcall('SADD', prefix .. ':queues', prefix .. ':queue:' .. lane)
  if wait == '' then
    redis.call('RPUSH', queue, job_id)
  else
    redis.call('HSET', prefix .. ':job:' .. job_id, 'status', 'scheduled')
    redis.call('ZADD', queue, string.format('%.6f', now + tonumber(wait)), job_id)
  end
  redis.call('HSET', key, 'last', job_id)
end
if tick ~= '' then redis.call('ZADD', due, next_tick == '' and '+inf' or next_tick, name) end
local said = string.format('%.3f', late)
redis.call('LPUSH', ours .. 'ticks:' .. name, cjson.encode({
  tick = tick == '' and string.format('%.3f', now) or tick, late = said, job = job_id, skipped = reason, last = last_skipped,
  manual = tick == ''}))
redis.call('LTRIM', ours .. 'ticks:' .. name, 0, 19)
return {job_id == '' and 'skipped' or 'enqueued', said, reason}
