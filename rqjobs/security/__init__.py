"""Which addresses may be reached, how messages are signed, and what is masked."""
