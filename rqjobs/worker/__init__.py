"""The worker: takes jobs from Redis, runs their processors, writes the outcomes back."""
