-- What a key of another type costs that any client can write. It stands before the scripts that need it
-- (rqjobs/broker/scripts.py). A lane with such a key is out of use: no script takes from it or writes to it until the key
-- is deleted or replaced; recover.lua returns the key for the log, health and doctor name it. A job with such a key is
-- dropped, or its outcome is refused. Of what only counts or informs, such a key counts nothing (``try``).
local function has_type(key, kind)
  local found = redis.call('TYPE', key).ok
  return found == kind or found == 'none'
end

-- The first key of a lane that is of another type; nil if there is none.
local function broken_key(prefix, lane)
  local function broken(name, kind)
    local key = prefix .. name .. lane
    return not has_type(key, kind) and key or nil
  end
  return broken(':queue:', 'list') or broken(':wip:', 'zset') or broken(':scheduled:', 'zset')
    or broken(':finished:', 'zset') or broken(':failed:', 'zset')
end

-- The answer to a command; nil if its key is of another type, or holds what the command cannot use.
local function try(...)
  local answer = redis.pcall(...)
  if type(answer) == 'table' and answer.err then return nil end
  return answer
end

-- The table in a text of JSON; nil if it is none.
local function decode_table(text)
  local decoded, value = pcall(cjson.decode, text)
  return decoded and type(value) == 'table' and value or nil
end

