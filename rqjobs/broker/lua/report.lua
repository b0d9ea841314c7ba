-- Writes a job's meta, unless the job was deleted: that would make a new hash with only this field, for ever.
-- ARGV: RQ's prefix, id, meta (JSON). Returns 1 if it was written.
local prefix, id, meta = ARGV[1], ARGV[2], ARGV[3]
local key = prefix .. ':job:' .. id
if redis.call('EXISTS', key) == 0 then return 0 end
redis.call('HSET', key, 'meta', meta)
return 1
