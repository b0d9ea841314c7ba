-- Groups: the waiting jobs of a group in order, the turns of the groups, and the slots of running jobs. It is put before
-- the scripts that start and end jobs (rqjobs/broker/scripts.py). docs/jobs/groups.md has the design. A job of a group has
-- the fields `group` and, after it has got its place in the order, `group_place` in its hash.
--
-- Keys of a lane: groups:waiting (the members are "group\nplace\nid", all of score 0, so in order of group and place),
--   groups:turns (the groups that may start a job, by their turn), groups:paced (those that wait for their rate limit, by
--   the time at which it admits a job). Keys of a queue: groups:slots ("group\nid" of each job with a slot of its group,
--   all of score 0), groups:rates (groups by the time at which their bucket is full again).
-- Key of all: groups:lanes (a set: the lanes with waiting jobs of groups), groups:places (the last place that was given).
local MOST_BYTES_OF_NAME = 800  -- 200 characters
local END = '\11'  -- the character after "\n": where the members of a group end

local function group_key(ours, kind, name) return ours .. ':groups:' .. kind .. ':' .. name end

local function queue_of(lane) return string.match(lane, '^(.+):high$') or string.match(lane, '^(.+):low$') or lane end

local function lanes_of(queue) return {queue .. ':high', queue, queue .. ':low'} end

-- The first two waiting jobs of a group, of the key of its lane.
local function first_waiting(waiting, group)
  return redis.call('ZRANGEBYLEX', waiting, '[' .. group .. '\n', '(' .. group .. END, 'LIMIT', 0, 2)
end

local last_turns = {}  -- of each lane in this call, and the groups that were given one since

-- The number of a turn at the end of the round.
local function new_turn(ours, lane)
  local known = last_turns[lane]
  if not known then
    local last = redis.call('ZRANGE', group_key(ours, 'turns', lane), -1, -1, 'WITHSCORES')
    known = {number = tonumber(last[2] or '') or 0, given = {}}
    last_turns[lane] = known
  end
  known.number = known.number + 1
  return known.number
end

-- Gives a group a turn at the end of the round, unless it has one already.
local function give_turn(ours, lane, group)
  if last_turns[lane] and last_turns[lane].given[group] then return end
  redis.call('ZADD', group_key(ours, 'turns', lane), 'NX', new_turn(ours, lane), group)
  last_turns[lane].given[group] = true
end

-- A key of another type holds nothing of ours: it is deleted, and not broken_keys.lua's business, since the lane's other jobs
-- do not need it.
local function check_group_keys(ours, kinds, name)
  for _, kind in ipairs(kinds) do
    local key = group_key(ours, kind, name)
    if not has_type(key, 'zset') then redis.call('DEL', key) end
  end
end

local places = {first = 1, last = 0}  -- that this call has and no job was given yet
local MOST_PLACES = 64

-- A place behind all others. It is kept in the job's hash, so that the job comes back to it.
local function next_place(ours)
  if places.first > places.last then
    local last = try('INCRBY', ours .. ':groups:places', MOST_PLACES)
    if not last then
      redis.call('DEL', ours .. ':groups:places')
      last = redis.call('INCRBY', ours .. ':groups:places', MOST_PLACES)
    end
    places = {first = last - MOST_PLACES + 1, last = last}
  end
  places.first = places.first + 1
  return string.format('%016.0f', places.first - 1)
end

local function new_place(ours, key)
  local place = next_place(ours)
  redis.call('HSET', key, 'group_place', place)
  return place
end

local joined_lanes = {}

-- Puts a job among the waiting ones of its group, at its place, and gives the group a turn. Whether that is full is
-- looked at when its turn has come.
local function join_group(ours, lane, group, place, id)
  redis.call('ZADD', group_key(ours, 'waiting', lane), 0, group .. '\n' .. place .. '\n' .. id)
  if not joined_lanes[lane] then
    if not try('SADD', ours .. ':groups:lanes', lane) then
      redis.call('DEL', ours .. ':groups:lanes')
      redis.call('SADD', ours .. ':groups:lanes', lane)
    end
    joined_lanes[lane] = true
  end
  give_turn(ours, lane, group)
end

local function has_slot(ours, queue, group, id)
  return redis.call('ZSCORE', group_key(ours, 'slots', queue), group .. '\n' .. id)
end

local function slots_used(ours, queue, group)
  return redis.call('ZLEXCOUNT', group_key(ours, 'slots', queue), '[' .. group .. '\n', '(' .. group .. END)
end

local lanes_with_groups = {}  -- of each queue

-- A group whose slot is free has a turn in each lane where its jobs wait. Answers whether it has one.
local function slot_is_free(ours, queue, group)
  local more, lanes = false, lanes_with_groups[queue]
  if not lanes then
    lanes = {}
    for _, lane in ipairs(lanes_of(queue)) do
      if redis.call('EXISTS', group_key(ours, 'waiting', lane)) == 1 then lanes[#lanes + 1] = lane end
    end
    lanes_with_groups[queue] = lanes
  end
  for _, lane in ipairs(lanes) do
    if first_waiting(group_key(ours, 'waiting', lane), group)[1] then
      give_turn(ours, lane, group)
      more = true
    end
  end
  return more
end

-- Frees the slot of a job, if it has one.
local function free_slot(ours, queue, group, id)
  local had = redis.call('ZREM', group_key(ours, 'slots', queue), group .. '\n' .. id) == 1
  return had and slot_is_free(ours, queue, group)
end

-- What a job's hash has as its group; nil if that is none that we have written.
local function read_group(text)
  return type(text) == 'string' and text ~= '' and #text <= MOST_BYTES_OF_NAME and not string.find(text, '%c') and text or nil
end

local function group_of(prefix, id)
  return read_group(try('HGET', prefix .. ':job:' .. id, 'group'))
end

-- A lane without waiting jobs of groups keeps no key of them.
local function forget_empty(ours, lane)
  if redis.call('EXISTS', group_key(ours, 'waiting', lane)) == 1 then return end
  redis.call('DEL', group_key(ours, 'turns', lane), group_key(ours, 'paced', lane))
  redis.call('SREM', ours .. ':groups:lanes', lane)
end

-- Takes a waiting job out of its group, for one that is deleted. Answers how many it took out.
local function leave_group(prefix, ours, lane, id)
  local job = try('HMGET', prefix .. ':job:' .. id, 'group', 'group_place')
  if not job or not job[1] then return 0 end
  free_slot(ours, queue_of(lane), job[1], id)
  local out = redis.call('ZREM', group_key(ours, 'waiting', lane), job[1] .. '\n' .. (job[2] or '') .. '\n' .. id)
  if out > 0 then forget_empty(ours, lane) end
  return out
end

local function waits_in_group(prefix, ours, lane, id)
  local job = try('HMGET', prefix .. ':job:' .. id, 'group', 'group_place')
  if not job or not job[1] or not job[2] then return false end
  return redis.call('ZSCORE', group_key(ours, 'waiting', lane), job[1] .. '\n' .. job[2] .. '\n' .. id)
end

-- Takes the first waiting jobs out of the groups of a lane, in no order of turns, and adds them to ``ids``.
local function pop_waiting(ours, lane, count, ids)
  local members = try('ZPOPMIN', group_key(ours, 'waiting', lane), count) or {}
  for i = 1, #members, 2 do ids[#ids + 1] = string.match(members[i], '([^\n]*)$') end
  forget_empty(ours, lane)
end

