"""The processors of the five queues, one module or package each; they do not import each other."""
