-- The turns of groups, for reserve.lua, which stands behind groups.lua and this.
local MAX_JOINED = 1000  -- jobs that one call puts in order: about 4 ms of Redis

-- What a queue's policy says of its groups, from the arguments: slots of each ('' = any number), rate (jobs/s), burst.
local function read_limits(at)
  local slots, rate, burst, slot = ARGV[at], ARGV[at + 1], ARGV[at + 2], ARGV[at + 3]
  return {slots = tonumber(slots), rate = tonumber(rate), burst = tonumber(burst), strict = slot == 'job'}
end

-- Groups that their rate held back have a turn once it lets them; a time that is too far away is of another clock.
local function end_pauses(ours, lane, limits, now)
  local paced = group_key(ours, 'paced', lane)
  if redis.call('EXISTS', paced) == 0 then return end
  local longest = limits.rate and limits.burst / limits.rate or 0
  local due = redis.call('ZRANGEBYSCORE', paced, '-inf', limits.rate and now or '+inf', 'LIMIT', 0, 1000)
  local wrong = redis.call('ZRANGEBYSCORE', paced, now + 2 * longest + 1, '+inf', 'LIMIT', 0, 1000)
  for _, found in ipairs({due, wrong}) do
    for _, group in ipairs(found) do
      give_turn(ours, lane, group)
      redis.call('ZREM', paced, group)
    end
  end
end

-- Counts a start against the rate of a group: a bucket that is full again at a known time. Answers when the group may
-- start a job, if it may not now and is not to ``anyhow``.
local function count_start(ours, queue, limits, group, now, anyhow)
  local key, whole = group_key(ours, 'rates', queue), limits.burst / limits.rate
  local full = tonumber(redis.call('ZSCORE', key, group) or '') or now
  if full > now + 2 * whole then full = now end  -- of another clock
  local after = math.max(full, now) + 1 / limits.rate
  local wait = after - whole - now
  if wait > 1e-6 and not anyhow then return now + wait end
  redis.call('ZADD', key, string.format('%.6f', math.min(after, now + 2 * whole)), group)
  redis.call('ZREMRANGEBYSCORE', key, '-inf', string.format('%.6f', now))
  redis.call('EXPIRE', key, math.ceil(2 * whole) + 60)
  return nil
end

-- The waiting job whose turn it is in its group; nil if it may start none: then the group leaves the round, until a slot
-- is free, a job joins it, or its rate lets it. And whether the group may start another one.
local function next_of_group(ours, queue, lane, waiting, limits, group, now)
  local members = first_waiting(waiting, group)
  if not members[1] then return nil end
  local used = limits.slots and slots_used(ours, queue, group) or 0
  if limits.slots and used >= limits.slots then return nil end
  local due = limits.rate and count_start(ours, queue, limits, group, now)
  if due then
    redis.call('ZADD', group_key(ours, 'paced', lane), string.format('%.6f', due), group)
    return nil
  end
  return members[1], members[2] and (not limits.slots or used + 1 < limits.slots)
end

-- Up to ``wanted`` ids and their groups, one of each group that has a turn and a free slot, round and round; each has a
-- slot of its group then, if slots are limited.
local function take_turns(ours, queue, lane, limits, wanted, now)
  local ids, groups, waiting = {}, {}, group_key(ours, 'waiting', lane)
  while #ids < wanted do
    local round = redis.call('ZPOPMIN', group_key(ours, 'turns', lane), math.min(wanted - #ids, 200))
    if not round[1] then break end
    if last_turns[lane] then last_turns[lane].given = {} end
    local out, slots, again = {}, {}, {}
    for i = 1, #round, 2 do
      local group = round[i]
      local member, more = next_of_group(ours, queue, lane, waiting, limits, group, now)
      if member then
        local id = string.sub(member, #group + 19)  -- behind the place of 16 digits
        ids[#ids + 1], groups[#groups + 1], out[#out + 1] = id, group, member
        if limits.slots then slots[#slots + 1], slots[#slots + 2] = 0, group .. '\n' .. id end
        if more then again[#again + 1], again[#again + 2] = new_turn(ours, lane), group end
      end
    end
    if #out > 0 then
      redis.call('ZREM', waiting, unpack(out))
      if #slots > 0 then redis.call('ZADD', group_key(ours, 'slots', queue), unpack(slots)) end
    end
    if #again > 0 then redis.call('ZADD', group_key(ours, 'turns', lane), unpack(again)) end
  end
  return ids, groups
end

-- Whether a job of a queue's list is to wait for its group's turn: it is put into its order then. One that has its slot
-- still was claimed before, and is not done: it runs at once.
local function join_from_list(ours, queue, lane, key, group, id, now)
  local place = redis.call('HGET', key, 'group_place')
  if place and has_slot(ours, queue.name, group, id) then
    if queue.groups.rate then count_start(ours, queue.name, queue.groups, group, now, true) end
    return false
  end
  join_group(ours, lane, group, place or new_place(ours, key), id)
  return true
end

-- Puts a job back among the waiting ones that had its turn, but does not fit into the answer.
local function give_back(prefix, ours, queue, lane, group, id)
  redis.call('ZREM', group_key(ours, 'slots', queue), group .. '\n' .. id)
  local place = try('HGET', prefix .. ':job:' .. id, 'group_place')
  if place then join_group(ours, lane, group, place, id) end
end

-- Before jobs of a lane are taken by turns, and after.
local function open_groups(ours, queue, lane, now)
  check_group_keys(ours, {'waiting', 'turns', 'paced'}, lane)
  check_group_keys(ours, {'slots', 'rates'}, queue.name)
  end_pauses(ours, lane, queue.groups, now)
end

-- Returns the seconds until a group may go on that its rate holds back.
local function close_groups(ours, lane, now)
  forget_empty(ours, lane)
  local first = redis.call('ZRANGE', group_key(ours, 'paced', lane), 0, 0, 'WITHSCORES')
  return first[2] and math.max(0, tonumber(first[2]) - now) or math.huge
end

