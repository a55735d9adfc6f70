"""Tests of push/."""
