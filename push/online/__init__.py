"""Online and offline events of keys. See docs/howto/online.md."""
