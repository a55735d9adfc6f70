"""Tests of offline/sql/."""
