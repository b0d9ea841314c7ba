"""Settings, and the types of their values: durations, backoffs, addresses; logs and the secret key."""
