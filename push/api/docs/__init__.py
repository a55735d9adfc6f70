"""Documentation of the API: the source of the schema at /api/schema/."""
