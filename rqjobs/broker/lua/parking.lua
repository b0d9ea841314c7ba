-- Parks webhooks to a dead destination while reserve.lua takes them, which stands behind line.lua and this. Parking at
-- once what a worker would only look at and park (breaker.lua, 'ask') costs a tenth of that. In doubt a job goes the
-- long way: this knows the data that our own enqueueing writes, and decides nothing but a place in the line.

local MOST_PARKED = 200  -- by one call to Redis

-- The destinations and origins to which nothing may start now, by their names.
local function dead_destinations(ours, now)
  local dead = {}
  pcall(function()
    for _, name in ipairs(redis.call('ZREVRANGE', ours .. ':webhooks:parked', 0, 99)) do
      local state = load_destination(ours, name, now)
      if state.pace > 0 and is_dead(state, now) then dead[name] = state end
    end
  end)
  return dead
end

-- The state of that breaker of a job's data which is open, its names spelt as in Context.place. An error, or nil, if
-- none is, or the data is not plain.
local function dead_of(dead, data)
  local _, _, words = unpack(cjson.decode(data), 1, 3)
  local job = words[1] == 'webhooks' and words[2]
  if job.endpoint then return dead[job.endpoint] end  -- its present URL, so its origin, is in the database
  local scheme, host, port, rest = string.match(job.url, '^(https?)://([%w.-]+):?(%d*)([/?].*)')
  if port == '' then port = scheme == 'http' and '80' or '443' end
  local origin = scheme .. '://' .. host .. ':' .. port
  local path = string.match(rest, '^[^?]*')
  if path == '' then path = '/' end
  return dead[origin] or dead[origin .. path] or dead[origin .. ' ' .. job.webhook_id]
end

-- RQ's time as Unix seconds.
local function seconds_of(iso)
  local year, month, day, hour, minute, second = string.match(iso, '^(%d+)-(%d+)-(%d+)T(%d+):(%d+):([%d.]+)Z$')
  if month + 0 < 3 then year, month = year - 1, month + 12 end  -- years that end with February
  local days = 365 * year + math.floor(year / 4) - math.floor(year / 100) + math.floor(year / 400)
    + math.floor((153 * month - 457) / 5) + day - 719469
  return ((days * 24 + hour) * 60 + minute) * 60 + second
end

local function place_of(state, id, created_at, again)
  -- Who comes again stands in the line already, or has failed: then it is breaker.lua's to say where.
  if again then return redis.call('ZRANK', state.line, id) end
  return park(state, id, seconds_of(created_at))
end

-- Until when a job is to wait in the line of a dead destination; false if it is not to.
local function parked_until(dead, now, id, data, created_at, again)
  local plain, state = pcall(dead_of, dead, data)
  if not plain or not state then return false end
  local sound, place = pcall(place_of, state, id, created_at, again)
  if not sound or not place then return false end
  state.changed = true
  return turn(state, place, now + 0.01)
end

local function save_destinations(dead, now)
  for _, state in pairs(dead) do
    if state.changed then pcall(save_destination, state, now) end
  end
end

