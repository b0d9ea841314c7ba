-- Writes a job's meta, unless the job is gone meanwhile: its hash would come back with nothing else in it, for ever.
-- ARGV: RQ's prefix, id, meta (JSON). Answers 1 if it was written.
local key = ARGV[1] .. ':job:' .. ARGV[2]
if redis.call('EXISTS', key) == 0 then return 0 end
redis.call('HSET', key, 'meta', ARGV[3])
return 1
