-- Records which executions of a queue a worker runs now, for recover.lua. Returns nothing.
-- KEYS: the worker's key for the queue. ARGV: the executions, time to live of the key (s).
local key, executions, ttl = KEYS[1], ARGV[1], ARGV[2]
redis.call('DEL', key)  -- a write that a full Redis allows, and then the next too
redis.call('SET', key, executions, 'EX', ttl)
