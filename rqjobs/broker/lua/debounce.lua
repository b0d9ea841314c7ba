-- Debounced jobs, for enqueue.lua: a later call replaces the payload of a job that has not begun.

local waits = {queued = true, scheduled = true}

-- Absorbs a call into the job `id`, or refuses it; `refused` is the list to which its id is added then. A delayed job
-- waits anew, up to ten times its wait after the first call. While the job runs, or the one with `-again` waits, the
-- caller sends the call again for the id with `-again`.
-- Returns whether the call is done with: else the job must be written.
local function absorb(prefix, id, kind, status, now, refused)
  local key = prefix .. ':job:' .. id
  local again = redis.call('HGET', key .. '-again', 'status')
  if status == 'started' or (again and waits[again]) then
    refused[#refused + 1] = id
    return true
  end
  if not (status and waits[status]) then return false end
  if redis.call('HGET', key, 'origin') ~= kind.queue or (redis.call('HGET', key, 'group') or nil) ~= kind.group then
    refused[#refused + 1] = id
    return true
  end
  redis.call('HSET', key, unpack(kind.fields))
  redis.call('HSET', key, 'status', status)  -- it may be in its queue already
  redis.call('HINCRBY', key, 'absorbed', 1)
  if status == 'scheduled' then
    local first = tonumber(redis.call('HGET', key, 'debounced_since')) or now
    local due = math.min(now + kind.debounce, first + 10 * kind.debounce)
    redis.call('ZADD', prefix .. ':scheduled:' .. kind.queue, 'XX', string.format('%.6f', due), id)
  end
  return true
end
