"""``python -m rqjobs``."""

from rqjobs.cli import main

main()
