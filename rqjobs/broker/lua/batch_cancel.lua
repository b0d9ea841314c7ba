-- Runs one step of cancelling a batch (rqjobs/batches/records.py).
-- ARGV: RQ's prefix, our prefix, batch, the step and its words:
--   begin                       deletes the jobs that wait for the batch, and refuses further members
--   queue, lane, first, count   deletes the members among this part of a lane's waiting jobs
--   delayed, lane, first, count likewise of a lane's delayed jobs
--   groups, lane, first, count  likewise of a lane's jobs that wait in groups
--   end, '1' if no more members can arrive   deletes the record
-- Returns {how many jobs were looked at, how many were deleted, how many members have not ended}; of begin {1, 0, 0}, or
--   {0, 0, 0} if there is no such batch, or it is done.
local prefix, ours, batch, step, lane = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5]
local record = batch_record(ours, batch)
local open, first, count = record .. ':open', tonumber(ARGV[6]), tonumber(ARGV[7])

if step == 'begin' then
  if redis.call('EXISTS', record) == 0 or redis.call('HEXISTS', record, 'ended') == 1 then return {0, 0, 0} end
  local next_jobs, on_dead = unpack(redis.call('HMGET', record, 'then', 'on_dead'))
  redis.call('HSET', record, 'cancelled', redis.call('TIME')[1])
  for _, rows in ipairs({next_jobs or '[]', on_dead or '[]'}) do drop_followers(prefix, cjson.decode(rows)) end
  for _, text in ipairs(redis.call('LRANGE', record .. ':next', 0, -1)) do
    local row = cjson.decode(text)
    redis.call('SREM', open, row[1])
    drop_followers(prefix, {row})
  end
  redis.call('HDEL', record, 'then', 'on_dead')
  redis.call('DEL', record .. ':next')
  return {1, 0, 0}
elseif step == 'queue' then
  local list, gone = prefix .. ':queue:' .. lane, 0
  local ids = redis.pcall('LRANGE', list, first, first + count - 1)
  if ids.err then return {0, 0, 1} end
  for place, id in ipairs(ids) do
    if redis.call('SREM', open, id) == 1 then
      leave_group(prefix, ours, lane, id)
      redis.call('LSET', list, first + place - 1, '')  -- then all go in one command, which reads the list once
      delete_job(prefix, id)
      gone = gone + 1
    end
  end
  if gone > 0 then redis.call('LREM', list, gone, '') end
  return {#ids, gone, redis.call('SCARD', open)}
elseif step == 'delayed' then
  local registry, gone = prefix .. ':scheduled:' .. lane, {}
  local ids = redis.pcall('ZRANGE', registry, first, first + count - 1)
  if ids.err then return {0, 0, 1} end
  for _, id in ipairs(ids) do
    if redis.call('SREM', open, id) == 1 then
      gone[#gone + 1] = id
      leave_group(prefix, ours, lane, id)
      delete_job(prefix, id)
    end
  end
  if #gone > 0 then redis.call('ZREM', registry, unpack(gone)) end
  return {#ids, #gone, redis.call('SCARD', open)}
elseif step == 'groups' then
  local members, gone = try('ZRANGE', group_key(ours, 'waiting', lane), first, first + count - 1) or {}, 0
  for _, member in ipairs(members) do
    local id = string.match(member, '([^\n]*)$')
    if redis.call('SREM', open, id) == 1 then
      leave_group(prefix, ours, lane, id)
      delete_job(prefix, id)
      gone = gone + 1
    end
  end
  return {#members, gone, redis.call('SCARD', open)}
end
redis.call('DEL', open, record .. ':dead')
redis.call('ZREM', ours .. ':batches', batch)
local expected, total, left_out = unpack(redis.call('HMGET', record, 'expected', 'total', 'left_out'))
if ARGV[5] == '1' or (expected and tonumber(total or 0) + tonumber(left_out or 0) >= tonumber(expected)) then
  redis.call('DEL', record)
  redis.call('ZREM', ours .. ':batches:opening', batch)
end
return {0, 0, 0}
