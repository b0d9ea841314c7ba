"""The worker: claims jobs in Redis, runs their processors, writes the outcomes back."""
