"""Access to Redis: connections, RQ's keys and job hashes, Lua scripts, and all reading and writing of jobs."""
