-- Writes the record of a batch, and the jobs that wait for it; those of a chain are its members, and the first of them
-- is enqueued. A call that is sent again changes nothing.
-- ARGV: RQ's prefix, our prefix, batch, how many members ('' = not known yet), '1' = a job whose id is in use keeps all
--   from being written ('' = it is left out), number of words, field, value, ... of the record, then for each job: role
--   ('then', 'on_dead' or 'next'), id, lane, wait ('' = none, seconds, '@' and Unix seconds), number of words, field,
--   value, ... of its hash
-- Returns the ids that are in use.
local prefix, ours, batch, expected, strict = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5] == '1'
local record, at = batch_record(ours, batch), 7 + tonumber(ARGV[6])
local first, used = at, {}
if redis.call('HEXISTS', record, 'then') == 1 or redis.call('HEXISTS', record, 'cancelled') == 1 then return {} end
redis.call('SCARD', record .. ':open')  -- a key of another type: nothing is written
while ARGV[at] do
  if redis.call('EXISTS', prefix .. ':job:' .. ARGV[at + 1]) == 1 then used[#used + 1] = ARGV[at + 1] end
  redis.call('ZCARD', prefix .. ':deferred:' .. ARGV[at + 2])
  at = at + 5 + tonumber(ARGV[at + 4])
end
if strict and #used > 0 then return used end
local rows, links, left_out = {['then'] = {}, on_dead = {}, next = {}}, {}, 0
at = first
while ARGV[at] do
  local role, id, lane, wait, last = ARGV[at], ARGV[at + 1], ARGV[at + 2], ARGV[at + 3], at + 4 + tonumber(ARGV[at + 4])
  if redis.call('EXISTS', prefix .. ':job:' .. id) == 0 then
    redis.call('HSET', prefix .. ':job:' .. id, unpack(ARGV, at + 5, last))
    redis.call('ZADD', prefix .. ':deferred:' .. lane, '+inf', id)
    table.insert(rows[role], {id, lane, wait})
    if role == 'next' then
      links[#links + 1] = id
      redis.call('RPUSH', record .. ':next', cjson.encode({id, lane, wait}))
    end
  elseif role == 'next' then
    left_out = left_out + 1
  end
  at = last + 1
end
redis.call('HSET', record, 'then', cjson.encode(rows['then']), 'on_dead', cjson.encode(rows.on_dead), unpack(ARGV, 7, first - 1))
if expected ~= '' then redis.call('HSET', record, 'expected', expected) end
redis.call('ZADD', ours .. ':batches', redis.call('TIME')[1], batch)
members_arrived(prefix, ours, batch, links, left_out)
if redis.call('EXISTS', record .. ':dead') == 1 then note_death(prefix, record) end
advance_batch(prefix, ours, batch, true)
return used
