"""Accepted messages, the keys that they are pending for, and their history."""
