"""Tests of push/wire."""
