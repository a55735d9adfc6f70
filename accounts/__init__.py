"""Authentication and permissions: of sessions, and of callers of the API."""
