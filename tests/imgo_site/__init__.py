"""Tests of imgo_site/."""
