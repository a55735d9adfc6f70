"""Times to the second, as everywhere else: within a minute much happens here."""

DATETIME_FORMAT = "Y-m-d H:i:s"
