-- Deletes dead jobs whole.
-- ARGV: RQ's prefix, then for each job: id, queue. Answers the ids that were dead and are gone.
local prefix, done = ARGV[1], {}
for i = 2, #ARGV, 2 do
  local id = ARGV[i]
  if redis.call('ZREM', prefix .. ':failed:' .. ARGV[i + 1], id) == 1 then
    redis.call('DEL', prefix .. ':job:' .. id, prefix .. ':job:' .. id .. ':dependents',
               prefix .. ':job::' .. id .. ':dependencies', prefix .. ':executions:' .. id, prefix .. ':results:' .. id)
    done[#done + 1] = id
  end
end
return done
