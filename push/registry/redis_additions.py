"""Additions of sessions to the registry in Redis: one command for all that wait.

In a storm of connects a node adds hundreds of sessions with one pipeline. A command of its own for
each would have to be encoded, and its reply parsed.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import msgspec

from push.registry.base import Entry
from push.registry.redis_keys import count_name, key_name

KEY_TTL = 86_400  # seconds that the sessions of a key outlive the last change or renewal

# Adds any number of sessions of one node, without a cap. The first key is the node's count. Each
# session has a key, and two arguments behind the first: its id and its entry.
_ADD = """
for i = 2, #KEYS do
  redis.call('HSET', KEYS[i], ARGV[2 * i - 2], ARGV[2 * i - 1])
  redis.call('EXPIRE', KEYS[i], ARGV[1])
end
redis.call('INCRBY', KEYS[1], #KEYS - 1)
"""

Command = tuple[Any, ...]


class Addition(NamedTuple):
    """Addition of a session without a cap, which shares a command with those next to it."""

    entry: Entry

    @staticmethod
    def command(additions: Sequence["Addition"]) -> Command:
        """Return the command for sessions of one node, at least one."""
        entries = [addition.entry for addition in additions]
        keys = [count_name(entries[0].node), *(key_name(entry.key) for entry in entries)]
        pairs = [part for entry in entries for part in (entry.id, msgspec.json.encode(entry))]
        return ("EVAL", _ADD, len(keys), *keys, KEY_TTL, *pairs)
