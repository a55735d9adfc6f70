"""Django's Postgres backend with a pool that keeps only usable connections, and bounded waits.

It is the ENGINE of `DATABASE_URL`. Django imports `base` from here.
"""
