-- Batches: counts members as they end, and enqueues the jobs that wait for the batch (docs/jobs/batches.md). It is put
-- before every script that makes a job done or dead, requeues or deletes it.
--
-- The record is a hash: name, tags, created, expected (the number of members; missing until the enqueueing call has sent
-- them all), total (members that have arrived), left_out (members that were not enqueued because their ids were in use),
-- done, died (when the first member died), ended (when the last one was done), cancelled, chain ('1': a member starts when
-- the one before is done), and the jobs that wait: then and on_dead, each a JSON list of [id, lane, wait]. The waiting jobs
-- of a chain are a list of such rows in order. Members that have not ended, and dead ones, are a set each, so that a member
-- is counted once even if its end is written several times.
local BATCH_KEPT = 86400  -- seconds that the record of a done batch is kept, as for done jobs
local MOST_DONE_BATCHES = 1000  -- the most done batches kept

local function batch_record(ours, batch) return ours .. ':batch:' .. batch end

-- Returns Redis' time in RQ's format.
local function rq_time(time)
  local seconds = tonumber(time[1])
  local day, rest = math.floor(seconds / 86400), seconds % 86400
  local z = day + 719468  -- days since 1 March of the year 0: the leap day is the last one of such a year
  local era = math.floor(z / 146097)
  local doe = z - era * 146097
  local yoe = math.floor((doe - math.floor(doe / 1460) + math.floor(doe / 36524) - math.floor(doe / 146096)) / 365)
  local doy = doe - (365 * yoe + math.floor(yoe / 4) - math.floor(yoe / 100))
  local mp = math.floor((5 * doy + 2) / 153)
  local month = mp < 10 and mp + 3 or mp - 9
  return string.format('%04d-%02d-%02dT%02d:%02d:%02d.%06dZ', yoe + era * 400 + (month <= 2 and 1 or 0), month,
    doy - math.floor((153 * mp + 2) / 5) + 1, math.floor(rest / 3600), math.floor(rest % 3600 / 60), rest % 60, time[2])
end

-- Enqueues a job that waits for its batch; returns false if it was deleted.
local function enqueue_follower(prefix, row)
  local id, lane, wait = row[1], row[2], row[3]
  local key, queue, time = prefix .. ':job:' .. id, prefix .. ':queue:' .. lane, redis.call('TIME')
  if redis.call('ZREM', prefix .. ':deferred:' .. lane, id) == 0 then return false end
  if redis.call('HGET', key, 'status') ~= 'deferred' then return false end
  try('SADD', prefix .. ':queues', queue)
  if wait == '' and has_type(queue, 'list') then
    redis.call('HSET', key, 'status', 'queued', 'enqueued_at', rq_time(time))
    redis.call('RPUSH', queue, id)
  else  -- seconds, or '@' and the Unix seconds at which it is due; or its queue is out of use (broken_keys.lua)
    local moment = string.match(wait, '^@(.+)')
    local now = tonumber(time[1]) + tonumber(time[2]) / 1000000
    redis.call('HSET', key, 'status', 'scheduled')
    redis.call('ZADD', prefix .. ':scheduled:' .. lane,
      string.format('%.6f', moment and tonumber(moment) or now + (tonumber(wait) or 0)), id)
  end
  return true
end

local function drop_followers(prefix, rows)
  for _, row in ipairs(rows) do
    if redis.call('ZREM', prefix .. ':deferred:' .. row[2], row[1]) == 1 then
      redis.call('DEL', prefix .. ':job:' .. row[1])
    end
  end
end

-- Ends a batch that is done: enqueues ``then``, and keeps only the record, for a day.
local function end_batch(prefix, ours, batch, next_jobs, on_dead, died)
  local record, now = batch_record(ours, batch), redis.call('TIME')[1]
  redis.call('HSET', record, 'ended', now)
  for _, row in ipairs(cjson.decode(next_jobs)) do enqueue_follower(prefix, row) end
  if not died then drop_followers(prefix, cjson.decode(on_dead)) end
  redis.call('DEL', record .. ':open', record .. ':dead', record .. ':next')
  redis.call('EXPIRE', record, BATCH_KEPT)
  redis.call('ZREM', ours .. ':batches', batch)
  redis.call('ZREM', ours .. ':batches:opening', batch)
  local done = ours .. ':batches:done'
  redis.call('ZADD', done, now, batch)
  redis.call('ZREMRANGEBYSCORE', done, '-inf', now - BATCH_KEPT)
  for _, old in ipairs(redis.call('ZRANGE', done, 0, -1 - MOST_DONE_BATCHES)) do
    redis.call('DEL', batch_record(ours, old))
    redis.call('ZREM', done, old)
  end
end

-- Enqueues on_dead at the first dead member.
local function note_death(prefix, record)
  local on_dead = redis.call('HGET', record, 'on_dead')
  if on_dead and redis.call('HSETNX', record, 'died', redis.call('TIME')[1]) == 1 then
    for _, row in ipairs(cjson.decode(on_dead)) do enqueue_follower(prefix, row) end
  end
end

-- Ends the batch if its last member is done; otherwise enqueues the next job of a chain.
local function advance_batch(prefix, ours, batch, next_link)
  local record = batch_record(ours, batch)
  local expected, done, left_out, next_jobs, on_dead, died, ended, chain = unpack(redis.call('HMGET', record, 'expected',
    'done', 'left_out', 'then', 'on_dead', 'died', 'ended', 'chain'))
  if ended or not expected or not next_jobs then return end
  if tonumber(done or 0) + tonumber(left_out or 0) >= tonumber(expected) then
    end_batch(prefix, ours, batch, next_jobs, on_dead, died)
  elseif chain and next_link then
    local row = redis.call('LPOP', record .. ':next')
    row = row and cjson.decode(row)
    if row and not enqueue_follower(prefix, row) and redis.call('SMOVE', record .. ':open', record .. ':dead', row[1]) == 1
    then
      note_death(prefix, record)
    end
  end
end

local function count_done(prefix, ours, batch, ids)
  local record = batch_record(ours, batch)
  local new = redis.call('SREM', record .. ':open', unpack(ids))
  if new < #ids then new = new + redis.call('SREM', record .. ':dead', unpack(ids)) end  -- requeued by RQ's own methods
  if new == 0 then return end
  redis.call('HINCRBY', record, 'done', new)
  advance_batch(prefix, ours, batch, true)
end

local function count_dead(prefix, ours, batch, id)
  local record = batch_record(ours, batch)
  if redis.call('SMOVE', record .. ':open', record .. ':dead', id) == 1 then note_death(prefix, record) end
end

local function count_requeued(prefix, ours, batch, id)
  local record = batch_record(ours, batch)
  redis.call('SMOVE', record .. ':dead', record .. ':open', id)
end

-- Counts members that have ended, or one that is requeued. Keys of the wrong type must not stop the job.
local function members_done(prefix, ours, batch, ids) pcall(count_done, prefix, ours, batch, ids) end
local function member_dead(prefix, ours, batch, id) pcall(count_dead, prefix, ours, batch, id) end
local function member_requeued(prefix, ours, batch, id) pcall(count_requeued, prefix, ours, batch, id) end

-- Counts members that have arrived, or were left out. A cancelled record is kept only while more may arrive.
local function members_arrived(prefix, ours, batch, ids, left_out)
  local record = batch_record(ours, batch)
  if #ids > 0 then redis.call('HINCRBY', record, 'total', redis.call('SADD', record .. ':open', unpack(ids))) end
  if left_out > 0 then redis.call('HINCRBY', record, 'left_out', left_out) end
  local expected, total, out, cancelled = unpack(redis.call('HMGET', record, 'expected', 'total', 'left_out', 'cancelled'))
  if not expected or tonumber(total or 0) + tonumber(out or 0) < tonumber(expected) then
    redis.call('ZADD', ours .. ':batches:opening', redis.call('TIME')[1], batch)
    return
  end
  redis.call('ZREM', ours .. ':batches:opening', batch)
  if cancelled then redis.call('DEL', record) else advance_batch(prefix, ours, batch, false) end
end

