"""Projects that have imgo beside their own code, with settings that must not reach it."""
