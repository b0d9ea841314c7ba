"""The outside world, played on loopback over its real protocols: for the demo, for tests, for trying things out."""
