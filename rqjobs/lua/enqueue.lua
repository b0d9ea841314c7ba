-- Writes any number of jobs as RQ 3 does: the hash, then the queue's list or the scheduled registry.
-- ARGV: RQ's prefix, the time, number of sets of fields that jobs have in common, for each: number of words, field,
--   value, ...; then for each job:
--   id, queue, due (unix seconds, '' = now), unique ('1' or ''), outbox token or '', which set of fields,
--   names of its own fields with + between them, their values
-- A token that was seen is skipped silently: the job was moved before, and its row only not deleted yet.
-- Answers the ids that were not written because they are already there.
-- Keys are made here from the prefix: one Redis, or one Redis Cluster slot through RQ_KEY_PREFIX={...}.
local prefix, now, i, refused, queues, sets, names = ARGV[1], ARGV[2], 4, {}, {}, {}, {}
for n = 1, tonumber(ARGV[3]) do
  local count = tonumber(ARGV[i])
  sets[n] = {unpack(ARGV, i + 1, i + count)}
  i = i + 1 + count
end
local busy = {queued = true, started = true, scheduled = true, deferred = true, rate_limited = true,
              ready_to_enqueue = true}

-- Whether the job at `key` is the very one whose own fields begin after ARGV[at]: created in the same microsecond.
local function again(key, own, at)
  for n, name in ipairs(own) do
    if name == 'created_at' then return redis.call('HGET', key, name) == ARGV[at + n] end
  end
  return false
end

while ARGV[i] do
  local id, queue, due, unique, token = ARGV[i], ARGV[i + 1], ARGV[i + 2], ARGV[i + 3], ARGV[i + 4]
  local fields, own = sets[tonumber(ARGV[i + 5])], names[ARGV[i + 6]]
  if not own then
    own = {}
    for name in string.gmatch(ARGV[i + 6], '[^+]+') do own[#own + 1] = name end
    names[ARGV[i + 6]] = own
  end
  local key = prefix .. ':job:' .. id
  local status = redis.call('HGET', key, 'status')
  if token ~= '' and redis.call('ZADD', prefix .. 'jobs:outbox', 'NX', now, token) == 0 then
    -- moved before
  elseif status and again(key, own, i + 6) then
    -- redis-py sent the call once more because its answer was lost
  elseif status and (busy[status] or (unique == '1' and status == 'finished')) then
    refused[#refused + 1] = id
  else
    if status then  -- an ended job of this id makes room for the new one
      local origin = redis.call('HGET', key, 'origin') or queue
      for _, registry in ipairs({'finished', 'failed', 'canceled'}) do
        redis.call('ZREM', prefix .. ':' .. registry .. ':' .. origin, id)
      end
      redis.call('DEL', key, prefix .. ':results:' .. id)
    end
    if not queues[queue] then
      queues[queue] = {}
      redis.call('SADD', prefix .. ':queues', prefix .. ':queue:' .. queue)
    end
    local words = {}
    for n, name in ipairs(own) do
      words[2 * n - 1], words[2 * n] = name, ARGV[i + 6 + n]
    end
    for _, word in ipairs(fields) do words[#words + 1] = word end
    redis.call('HSET', key, unpack(words))
    if due == '' then
      local ids = queues[queue]
      ids[#ids + 1] = id
    else
      redis.call('ZADD', prefix .. ':scheduled:' .. queue, due, id)
    end
  end
  i = i + 7 + #own
end
for queue, ids in pairs(queues) do
  for from = 1, #ids, 1000 do
    redis.call('RPUSH', prefix .. ':queue:' .. queue, unpack(ids, from, math.min(from + 999, #ids)))
  end
end
return refused
