"""Formats of times with seconds, because one minute has many events."""

DATETIME_FORMAT = "Y-m-d H:i:s"
