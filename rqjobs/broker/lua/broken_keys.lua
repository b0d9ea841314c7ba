-- Handles keys of the wrong type, which any client can write. It is put before the scripts that need it
-- (rqjobs/broker/scripts.py). A lane with such a key is out of use: no script claims from it or writes to it until the key
-- is deleted or replaced; recover.lua returns the key for the log, and health and doctor name it. A job with such a key is
-- dropped, or its outcome is refused. Such a key of counts or other information is ignored (``try``).
local function has_type(key, kind)
  local found = redis.call('TYPE', key).ok
  return found == kind or found == 'none'
end

-- Returns the first key of a lane that has the wrong type; nil if there is none.
local function broken_key(prefix, lane)
  local function broken(name, kind)
    local key = prefix .. name .. lane
    return not has_type(key, kind) and key or nil
  end
  return broken(':queue:', 'list') or broken(':wip:', 'zset') or broken(':scheduled:', 'zset')
    or broken(':finished:', 'zset') or broken(':failed:', 'zset')
end

-- Returns the response of a command; nil if its key has the wrong type, or a value that the command cannot use.
local function try(...)
  local answer = redis.pcall(...)
  if type(answer) == 'table' and answer.err then return nil end
  return answer
end

-- Returns the table of a JSON text; nil if the text is not one.
local function decode_table(text)
  local decoded, value = pcall(cjson.decode, text)
  return decoded and type(value) == 'table' and value or nil
end

