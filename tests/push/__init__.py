"""Tests of push/, but for push/wire: those are in tests/wire."""
