"""Server-Sent Events: the stream of a session, and the frames that its client posts."""
