"""Django signals that the server sends. See docs/howto/online.md.

`key_online` and `key_offline` are sent for the keys in `EVENT_KEYS`, by the node that stores the
event. Arguments:

`key`: the subscriber key.
`number`: the number of the event, higher than those of earlier events of the key.
`at`: when the key's first session opened, or its last one ended; an aware datetime.
`facts`: a dictionary with facts of that session, such as `transport`, `address` and `code`.

Receivers run inside the transaction that stores the event, so what they write to the database is
committed with it, once. The transaction holds locks: start slow work with
`transaction.on_commit`. The exception of a receiver is logged, and its own writes are undone.
"""

from django.dispatch import Signal

key_online = Signal()
key_offline = Signal()
