-- Writes any number of jobs as RQ 3 does: the hash, then the queue's list or the scheduled registry.
-- ARGV: RQ's prefix, the call's sender and number, number of kinds, for each what its jobs have in common: queue, unique
--   ('1' or ''), group ('' = none), number of words, field, value, ...; number of fields that each job has of its own, their names; then for
--   each job: which kind (from 1), id, delay (seconds, '' = none, '@' before it = Unix seconds at which it is due),
--   outbox token or '', the values of its own fields
-- A call that is sent again, because its answer was lost, writes nothing and gets the same answer: the sender's receipt
-- holds the number and the answer of its last call, for an hour. One sender never has two calls under way.
-- A token that was seen is skipped silently: the job was moved before, and its row only not deleted yet.
-- Returns the ids that were not written because they are already there, or run (debounce.lua), or their batch was
-- cancelled.
-- Keys are made here from the prefix: one Redis, or one Redis Cluster slot through RQ_KEY_PREFIX={...}.
local prefix, sender, call, kind_count, at = ARGV[1], ARGV[2], ARGV[3], tonumber(ARGV[4]), 5
local ours, kinds, waiting, refused = prefix .. 'jobs', {}, {}, {}
local sent = prefix .. 'jobs:sent:' .. sender
local receipt = redis.call('GET', sent) or ''
if string.match(receipt, '^%d+') == call then
  for id in string.gmatch(string.sub(receipt, #call + 1), '%S+') do refused[#refused + 1] = id end
  return refused
end
local time = redis.call('TIME')
local now = tonumber(time[1]) + tonumber(time[2]) / 1000000
for number = 1, kind_count do
  local queue, unique, group, last = ARGV[at], ARGV[at + 1] == '1', ARGV[at + 2], at + 3 + tonumber(ARGV[at + 3])
  waiting[queue] = waiting[queue] or {}
  kinds[number] = {queue = queue, unique = unique, waiting = waiting[queue], fields = {unpack(ARGV, at + 4, last)}}
  for field = at + 4, last, 2 do
    if ARGV[field] == 'batch' then kinds[number].batch = ARGV[field + 1] end
    if ARGV[field] == 'debounce' then kinds[number].debounce = tonumber(ARGV[field + 1]) end
  end
  if group ~= '' then kinds[number].group = group end
  at = last + 1
end
local own_fields, first_own = tonumber(ARGV[at]), at + 1
for _, kind in ipairs(kinds) do  -- the fields of a job's own stand after those of its kind
  kind.common = #kind.fields
  for n = 1, own_fields do kind.fields[kind.common + 2 * n - 1] = ARGV[first_own + n - 1] end
end
local first_job, JOB = first_own + own_fields, 4 + own_fields
local batches = {}  -- of the members among the jobs
for _, kind in ipairs(kinds) do
  if kind.batch and not batches[kind.batch] then
    local record = batch_record(prefix .. 'jobs', kind.batch)
    redis.call('SCARD', record .. ':open')  -- a key of another type: nothing is written
    batches[kind.batch] = {ids = {}, left_out = 0, cancelled = redis.call('HEXISTS', record, 'cancelled') == 1}
  end
  kind.batch = kind.batch and batches[kind.batch]
end
local busy = {queued = true, started = true, scheduled = true, deferred = true, rate_limited = true,
              ready_to_enqueue = true}

-- Whether there is room for a job whose id has been seen: an ended one gives way.
local function room(key, id, status, kind)
  if busy[status] or (kind.unique and status == 'finished') then
    refused[#refused + 1] = id
    return false
  end
  local origin = redis.call('HGET', key, 'origin') or kind.queue
  for _, registry in ipairs({'finished', 'failed', 'canceled'}) do
    redis.call('ZREM', prefix .. ':' .. registry .. ':' .. origin, id)
  end
  leave_dead(prefix .. 'jobs', origin, id)
  redis.call('DEL', key, prefix .. ':results:' .. id)
  return true
end

-- Nothing is written if a key of these is of another type: the jobs before it would be in no queue.
local statuses = {}
for i = first_job, #ARGV, JOB do
  local kind, ask = kinds[tonumber(ARGV[i])], ARGV[i + 2] == '' and 'LLEN' or 'ZCARD'
  if not kind[ask] then
    kind[ask] = redis.call(ask, prefix .. (ask == 'LLEN' and ':queue:' or ':scheduled:') .. kind.queue)
  end
  if kind.group and not kind.checked then
    check_group_keys(ours, {'waiting', 'turns'}, kind.queue)
    kind.checked = true
  end
  statuses[ARGV[i + 1]] = redis.call('HGET', prefix .. ':job:' .. ARGV[i + 1], 'status')
end

for i = first_job, #ARGV, JOB do
  local kind, id, delay, token = kinds[tonumber(ARGV[i])], ARGV[i + 1], ARGV[i + 2], ARGV[i + 3]
  local key = prefix .. ':job:' .. id
  local status = statuses[id]
  local new = token == '' or redis.call('ZADD', prefix .. 'jobs:outbox', 'NX', now, token) == 1
  local batch, before = kind.batch, #refused
  for n = 1, own_fields do kind.fields[kind.common + 2 * n] = ARGV[i + 3 + n] end
  local absorbed = new and kind.debounce and absorb(prefix, id, kind, status, now, refused)
  if new and batch and batch.cancelled then
    refused[#refused + 1] = id
  elseif new and not absorbed and (not status or room(key, id, status, kind)) then
    if batch then batch.ids[#batch.ids + 1] = id end
    local place = kind.group and delay == '' and next_place(ours)
    if place then
      local after = kind.common + 2 * own_fields
      kind.fields[after + 1], kind.fields[after + 2] = 'group_place', place
    end
    redis.call('HSET', key, unpack(kind.fields))
    if kind.debounce then redis.call('HSET', key, 'debounced_since', now) end
    statuses[id] = delay == '' and 'queued' or 'scheduled'  -- for the next of this id in the same call
    if not kind.known then
      try('SADD', prefix .. ':queues', prefix .. ':queue:' .. kind.queue)
      kind.known = true
    end
    if place then
      join_group(ours, kind.queue, kind.group, place, id)
    elseif delay == '' then
      kind.waiting[#kind.waiting + 1] = id
    else  -- a microsecond apart, so that they keep their order
      local moment = string.match(delay, '^@(.+)')
      local due = (moment and tonumber(moment) or now + tonumber(delay)) + (i - first_job) / JOB / 1000000
      redis.call('ZADD', prefix .. ':scheduled:' .. kind.queue, string.format('%.6f', due), id)
    end
  end
  if batch then batch.left_out = batch.left_out + #refused - before end
end
for queue, ids in pairs(waiting) do
  if #ids > 0 then redis.call('RPUSH', prefix .. ':queue:' .. queue, unpack(ids)) end
end
for id, batch in pairs(batches) do members_arrived(prefix, prefix .. 'jobs', id, batch.ids, batch.left_out) end
redis.call('SET', sent, table.concat({call, unpack(refused)}, ' '), 'EX', 3600)
return refused
