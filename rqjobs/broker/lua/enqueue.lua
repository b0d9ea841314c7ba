-- Writes any number of jobs as RQ 3 does: the hash, then the queue's list or the scheduled registry.
-- ARGV: RQ's prefix, the call's sender and number, '1' if the jobs are signed (else ''), number of kinds, for each what
--   its jobs have in common: queue, unique ('1' or ''), number of words, field, value, ...; then for each job: which kind (from 1), id, delay (seconds,
--   '' = none, '@' before it = Unix seconds at which it is due), outbox token or '', data, created_at, description,
--   and the signature if they are signed
-- A call that is sent again, because its answer was lost, writes nothing and gets the same answer: the sender's receipt
-- holds the number and the answer of its last call, for an hour. One sender never has two calls under way.
-- A token that was seen is skipped silently: the job was moved before, and its row only not deleted yet.
-- Returns the ids that were not written because they are already there.
-- Keys are made here from the prefix: one Redis, or one Redis Cluster slot through RQ_KEY_PREFIX={...}.
local prefix, at, kinds, waiting, refused = ARGV[1], 6, {}, {}, {}
local sent, call = prefix .. 'jobs:sent:' .. ARGV[2], ARGV[3]
local receipt = redis.call('GET', sent) or ''
if string.match(receipt, '^%d+') == call then
  for id in string.gmatch(string.sub(receipt, #call + 1), '%S+') do refused[#refused + 1] = id end
  return refused
end
local time = redis.call('TIME')
local now = tonumber(time[1]) + tonumber(time[2]) / 1000000
local signed = ARGV[4] == '1'
local width = signed and 8 or 7  -- words of a job
for n = 1, tonumber(ARGV[5]) do
  local queue, last = ARGV[at], at + 2 + tonumber(ARGV[at + 2])
  waiting[queue] = waiting[queue] or {}
  kinds[n] = {queue = queue, unique = ARGV[at + 1], waiting = waiting[queue],
              hash = {'data', '', 'created_at', '', 'description', '', unpack(ARGV, at + 3, last)}}
  if signed then
    local hash = kinds[n].hash
    hash[#hash + 1], hash[#hash + 2] = 'signature', ''
  end
  at = last + 1
end
local busy = {queued = true, started = true, scheduled = true, deferred = true, rate_limited = true,
              ready_to_enqueue = true}

-- Whether there is room for a job whose id has been seen: an ended one gives way.
local function room(key, id, status, kind)
  if busy[status] or (kind.unique == '1' and status == 'finished') then
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
for i = at, #ARGV, width do
  local kind, ask = kinds[tonumber(ARGV[i])], ARGV[i + 2] == '' and 'LLEN' or 'ZCARD'
  if not kind[ask] then
    kind[ask] = redis.call(ask, prefix .. (ask == 'LLEN' and ':queue:' or ':scheduled:') .. kind.queue)
  end
  statuses[ARGV[i + 1]] = redis.call('HGET', prefix .. ':job:' .. ARGV[i + 1], 'status')
end

for i = at, #ARGV, width do
  local kind, id, delay, token = kinds[tonumber(ARGV[i])], ARGV[i + 1], ARGV[i + 2], ARGV[i + 3]
  local key = prefix .. ':job:' .. id
  local status = statuses[id]
  local new = token == '' or redis.call('ZADD', prefix .. 'jobs:outbox', 'NX', now, token) == 1
  if new and (not status or room(key, id, status, kind)) then
    local hash = kind.hash
    hash[2], hash[4], hash[6] = ARGV[i + 4], ARGV[i + 5], ARGV[i + 6]
    if signed then hash[#hash] = ARGV[i + 7] end
    redis.call('HSET', key, unpack(hash))
    statuses[id] = 'queued'  -- or scheduled: the next of this id is too many
    if not kind.known then
      redis.call('SADD', prefix .. ':queues', prefix .. ':queue:' .. kind.queue)
      kind.known = true
    end
    if delay == '' then
      kind.waiting[#kind.waiting + 1] = id
    else  -- a microsecond apart, so that they keep their order
      local moment = string.match(delay, '^@(.+)')
      local due = string.format('%.6f', (moment and tonumber(moment) or now + tonumber(delay)) + (i - at) / 7000000)
      redis.call('ZADD', prefix .. ':scheduled:' .. kind.queue, due, id)
    end
  end
end
for queue, ids in pairs(waiting) do
  if #ids > 0 then redis.call('RPUSH', prefix .. ':queue:' .. queue, unpack(ids)) end
end
redis.call('SET', sent, table.concat({call, unpack(refused)}, ' '), 'EX', 3600)
return refused
