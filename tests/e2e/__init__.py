"""End to end: real processes, sockets, Postgres, Redis, worker. Nothing of the server is imported.

To run all of it against a server that is configured otherwise, put the settings into the
environment: `E2E_ENVIRONMENT="IMGO_SOMETHING=value IMGO_OTHER=value"`.
"""
