-- Parks webhooks to a dead destination while reserve.lua takes them; it stands before that script (rqjobs/scripts.py).
-- Parking at once what a worker would only look at and park (breaker.lua, 'ask') costs a tenth of that. In doubt a job
-- goes the long way: this knows the data that our own enqueueing writes, and decides nothing but a place in the line.
local function new_parking(ours, now)
  local KEPT, MOST = 86400, 200
  local parking, dead = {count = 0}, nil

  local function load(origin)
    local key = ours .. ':webhooks:breaker:' .. origin
    local values, count = redis.pcall('HMGET', key, 'open', 'probe', 'pace', 'seq', 'low', 'base', 'head'),
      redis.pcall('HLEN', key .. ':ranks')
    if values.err or type(count) ~= 'number' then return nil end
    for i = 1, 7 do values[i] = tonumber(values[i]) or 0 end
    local open, probe, pace, seq, low, base, head = unpack(values)
    if pace == 0 or open == 0 or math.max(open, probe) <= now then return nil end
    if count == 0 then seq, low, base, head = 0, 0, 0, 0 end
    local soonest = open > now and open or now + 1
    if base < open or (open <= now and base < now + 0.5) then
      if soonest - base >= (low - head) / pace then head = low end
      base = soonest
    end
    return {key = key, pace = pace, seq = seq, low = low, base = base, head = head, count = 0}
  end

  -- Whether any destination is known to be dead.
  function parking.any()
    if dead == nil then
      dead = {}
      local origins = redis.pcall('ZREVRANGE', ours .. ':webhooks:parked', 0, 99)
      for _, origin in ipairs(origins.err and {} or origins) do dead[origin] = load(origin) end
    end
    return next(dead) ~= nil
  end

  -- One call to Redis parks so many at most.
  function parking.has_room()
    return parking.count < MOST
  end

  -- The dead destination of a job's data, or nil.
  function parking.place_for(data)
    local scheme, host, port = string.match(data, '^%["[%w_.]+",null,%["webhooks",{"webhook_id":"[^"\\]*",' ..
      '"event":"[^"\\]*","url":"(https?)://([%w.-]+):?(%d*)[/?"]')
    if not scheme or string.find(data, '"endpoint":', 1, true) then return nil end  -- its present URL is in the database
    if port == '' then port = scheme == 'http' and '80' or '443' end
    return dead[scheme .. '://' .. host .. ':' .. port]
  end

  -- When the job may start: breaker.lua would give it the same place.
  function parking.park(place, id)
    local rank = place.seq
    if redis.call('HSETNX', place.key .. ':ranks', id, rank) == 1 then
      place.seq = rank + 1
    else
      rank = tonumber(redis.call('HGET', place.key .. ':ranks', id)) or rank
    end
    place.count, parking.count = place.count + 1, parking.count + 1
    return string.format('%.6f', math.max(place.base + (rank - place.head) / place.pace, now + 0.01))
  end

  function parking.save()
    for _, place in pairs(dead or {}) do
      if place.count > 0 then
        redis.call('HSET', place.key, 'seq', place.seq, 'low', place.low, 'base', string.format('%.6f', place.base),
          'head', place.head)
        redis.call('EXPIRE', place.key, KEPT)
        redis.call('EXPIRE', place.key .. ':ranks', KEPT)
      end
    end
  end

  return parking
end

