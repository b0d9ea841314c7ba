"""One file a migration; the newest is named in rqjobs.database.schema.HEAD."""
