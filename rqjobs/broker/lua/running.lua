-- Lets Redis know which executions of a queue a worker runs now (recover.lua).
-- KEYS: the worker's key for the queue. ARGV: the executions, how many seconds the key lives.
redis.call('DEL', KEYS[1])  -- a write that a full Redis allows, and then the next too
redis.call('SET', KEYS[1], ARGV[1], 'EX', ARGV[2])
