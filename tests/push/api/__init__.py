"""Tests of push/api/."""
