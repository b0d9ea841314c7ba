"""rqjobs in web frameworks: Flask, Django, FastAPI, and an endpoint for platforms that have only a cron."""
