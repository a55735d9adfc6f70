"""Database backend for SQLite with Django before 5.1."""
