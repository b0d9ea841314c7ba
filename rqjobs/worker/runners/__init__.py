"""Runners: where the function of a job is called - a thread, a coroutine, a process, a batch."""
