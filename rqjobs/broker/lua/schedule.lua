-- Moves due jobs from the scheduled registries to their queues, in order, atomically.
-- ARGV: RQ's prefix, now (RQ's format), most jobs of a lane, lane, lane, ...
-- Returns {seconds until the next job is due (-1 = none is delayed), number of moved jobs, {lane, id, ...} of jobs with RQ's
--   own rate limit: RQ's own methods move them, within RETRY seconds, after which they are due again}
-- A lane with a key of the wrong type is skipped (broken_keys.lua).
local prefix, iso, max_moved, first_lane = ARGV[1], ARGV[2], tonumber(ARGV[3]), 4
local RETRY = 10
redis.call('DEL', prefix .. ':scheduled')  -- this key never exists: a write that a full Redis allows, and then the others too
local time = redis.call('TIME')
local now = tonumber(time[1]) + tonumber(time[2]) / 1000000
local moved, soonest, limited = 0, -1, {}

-- A due job of a group joins the waiting ones, unless it has its slot still: then it is the first to go on.
local function join_when_due(prefix, lane, group, key, id)
  local ours, queue = prefix .. 'jobs', queue_of(lane)
  check_group_keys(ours, {'waiting', 'turns'}, lane)
  check_group_keys(ours, {'slots'}, queue)
  local place = redis.call('HGET', key, 'group_place')
  if place and has_slot(ours, queue, group, id) then return false end
  join_group(ours, lane, group, place or new_place(ours, key), id)
  return true
end

local function move(lane)
  local registry, list = prefix .. ':scheduled:' .. lane, prefix .. ':queue:' .. lane
  local due = redis.call('ZRANGEBYSCORE', registry, '-inf', string.format('%.6f', now), 'LIMIT', 0, max_moved)
  local back, front, gone, joined = {}, {}, {}, 0
  for _, id in ipairs(due) do
    local key = prefix .. ':job:' .. id
    local job = try('HMGET', key, 'status', 'rate_limit_key', 'enqueue_at_front', 'enqueue_at_front_on_retry', 'ended_at',
      'ttl', 'group')
    if job and job[2] and job[2] ~= '' then
      redis.call('ZADD', registry, string.format('%.6f', now + RETRY), id)
      limited[#limited + 1], limited[#limited + 2] = lane, id
    else
      gone[#gone + 1] = id
      if job and job[1] then
        redis.call('HSET', key, 'status', 'queued', 'enqueued_at', iso)
        if tonumber(job[6] or '') then try('EXPIRE', key, math.floor(tonumber(job[6]))) end
        local first = job[3] == '1' or (job[4] == '1' and job[5] and job[5] ~= '')
        local group, joins = read_group(job[7]), false
        if group then
          joins = join_when_due(prefix, lane, group, key, id)
          first = first or not joins
        end
        if joins then
          joined = joined + 1
        else
          local side = first and front or back
          side[#side + 1] = id
        end
      end
    end
  end
  if #gone > 0 then redis.call('ZREM', registry, unpack(gone)) end
  if #back > 0 then redis.call('RPUSH', list, unpack(back)) end
  if #front > 0 then redis.call('LPUSH', list, unpack(front)) end
  if #back + #front > 0 then try('SADD', prefix .. ':queues', list) end
  moved = moved + #back + #front + joined
  local next = redis.call('ZRANGE', registry, 0, 0, 'WITHSCORES')
  if next[2] then
    local wait = math.max(0, tonumber(next[2]) - now)
    soonest = soonest < 0 and wait or math.min(soonest, wait)
  end
end

for i = first_lane, #ARGV do
  if not broken_key(prefix, ARGV[i]) then move(ARGV[i]) end
end
return {string.format('%.6f', soonest), moved, limited}
