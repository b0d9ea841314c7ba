"""Redis: connections, RQ's keys and job hashes, Lua scripts, and everything that reads or writes jobs there."""
