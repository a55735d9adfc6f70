"""Server-Sent Events: the stream of a session, and the requests of its client beside it."""
