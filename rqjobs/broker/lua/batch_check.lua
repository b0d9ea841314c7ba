-- Counts members whose end no script of ours has written: their jobs were deleted, cancelled or ended by others.
-- ARGV: RQ's prefix, our prefix, batch, how many members to check, at random. Returns how many were counted.
local prefix, ours, batch, count = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
local ended, done = {failed = true, stopped = true, canceled = true}, {}
local dead = 0
for _, id in ipairs(redis.call('SRANDMEMBER', batch_record(ours, batch) .. ':open', count)) do
  local status = try('HGET', prefix .. ':job:' .. id, 'status')
  if not status or ended[status] then
    member_dead(prefix, ours, batch, id)
    dead = dead + 1
  elseif status == 'finished' then
    done[#done + 1] = id
  end
end
if #done > 0 then members_done(prefix, ours, batch, done) end
return dead + #done
