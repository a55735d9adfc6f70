"""Django app that connects a project to its imgo server.

`push_to_key` and its siblings write into an outbox in the project's own database, within the
caller's transaction. A relay sends committed rows to the server. The app also signs tokens for
signed-in users, and receives webhooks and hooks. `README.md` of the package has the set-up.
"""

from imgo_client.django.pushing import (
    cancel,
    push_to_all,
    push_to_key,
    push_to_keys,
    push_to_room,
)

__all__ = ["cancel", "push_to_all", "push_to_key", "push_to_keys", "push_to_room"]
