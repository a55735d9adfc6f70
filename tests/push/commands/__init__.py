"""Tests of the management commands, by command."""
