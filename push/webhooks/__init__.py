"""Webhooks: events that are sent to endpoints of the user's backend. See docs/howto/webhooks.md."""
