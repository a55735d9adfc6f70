"""Formats of numbers and times in the admin, named by `FORMAT_MODULE_PATH` of the settings."""
