-- Updates the index of dead letters (rqjobs/dead_letters/index.py). An error of its keys must not stop a job: the next
-- cleanup rebuilds a key of the wrong type.
local function leave_dead(ours, lane, id)
  local reasons = ours .. ':dead:reasons:' .. lane
  try('ZREM', ours .. ':dead:groups:' .. lane, id)
  local reason = try('ZSCORE', reasons, id)
  if not reason then return end
  try('ZREM', reasons, id)
  if try('ZCOUNT', reasons, reason, reason) == 0 then try('HDEL', ours .. ':dead:texts:' .. lane, reason) end
end

local function join_dead(ours, lane, id, entry)
  local fingerprint, reason, text = string.match(entry, '^(%d+) (%d+) (.*)')
  leave_dead(ours, lane, id)
  try('ZADD', ours .. ':dead:groups:' .. lane, fingerprint, id)
  try('ZADD', ours .. ':dead:reasons:' .. lane, reason, id)
  try('HSET', ours .. ':dead:texts:' .. lane, reason, text)
end

