"""Runners: each calls the functions of jobs in its own way - in a thread, a coroutine, a process, a batch."""
