"""rqjobs: the five background jobs every product needs, done right on RQ and Redis."""
