-- Records that all members of a batch have been sent, so that it is done when they are.
-- ARGV: RQ's prefix, our prefix, batch, how many members, '1' = the record may arrive later than this (outbox)
-- Returns 1; 0 if the batch was cancelled.
local prefix, ours, batch, expected = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
local record = batch_record(ours, batch)
if ARGV[5] ~= '1' and redis.call('EXISTS', record) == 0 then return 0 end
local cancelled = redis.call('HEXISTS', record, 'cancelled')
redis.call('HSET', record, 'expected', expected)
members_arrived(prefix, ours, batch, {}, 0)
return 1 - cancelled
