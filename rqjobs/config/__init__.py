"""Settings and the values that they are made of: durations, waits, addresses, logs, the secret key."""
