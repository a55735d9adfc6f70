"""The HTTP API: ours under /api/v1/, and imgo's own paths."""
