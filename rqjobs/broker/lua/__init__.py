"""The steps that must be atomic in Redis, as Lua scripts."""
