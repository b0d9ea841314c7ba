"""The migrations, one file each; the newest is rqjobs.database.schema.HEAD."""
