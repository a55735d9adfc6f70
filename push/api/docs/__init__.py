"""The documentation of the API: what the schema at /api/schema/ is made of."""
