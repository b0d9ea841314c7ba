-- Moves the waiting jobs of groups to their queues' lists, in the order of the turns, for RQ's own worker, which claims
-- from these only. No limit of a group holds any more.
-- ARGV: RQ's prefix, our prefix, how many jobs of a lane at most, lane, ...
-- Returns how many were moved.
local prefix, ours, most, first_lane, moved = ARGV[1], ARGV[2], tonumber(ARGV[3]), 4, 0
for i = first_lane, #ARGV do
  local lane = ARGV[i]
  check_group_keys(ours, {'waiting', 'turns', 'paced'}, lane)
  check_group_keys(ours, {'slots'}, queue_of(lane))
  local ids, limits = {}, {}
  repeat
    local found = take_turns(ours, queue_of(lane), lane, limits, most - #ids, 0)
    for _, id in ipairs(found) do ids[#ids + 1] = id end
    -- A group without a turn: its slots are taken, or its rate holds it back.
    local first = redis.call('ZRANGE', group_key(ours, 'waiting', lane), 0, 0)[1]
    if first then give_turn(ours, lane, string.match(first, '^[^\n]*')) end
  until not first or #ids >= most
  if #ids > 0 then
    redis.call('RPUSH', prefix .. ':queue:' .. lane, unpack(ids))
    redis.call('SADD', prefix .. ':queues', prefix .. ':queue:' .. lane)
  end
  forget_empty(ours, lane)
  moved = moved + #ids
end
return moved
