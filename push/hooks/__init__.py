"""Hooks: requests to the user's backend whose answers decide. See docs/howto/hooks.md."""
