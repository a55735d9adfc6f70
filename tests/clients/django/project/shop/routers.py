"""Database routers of unusual projects."""


class Elsewhere:
    """Keeps the app's tables in the database `other`, and reads of them in it too."""

    def db_for_read(self, model, **hints):
        return "other" if model._meta.app_label == "imgo_client" else None

    db_for_write = db_for_read

    def allow_migrate(self, db, app_label, **hints):
        return (db == "other") == (app_label == "imgo_client")
