"""All attacks, by name."""

from . import http_attacks, session_attacks
from .target import Attack

ATTACKS: dict[str, Attack] = {
    attack.__name__: attack
    for attack in (
        http_attacks.huge_bodies,
        http_attacks.huge_chunked_bodies,
        http_attacks.unfinished_bodies,
        http_attacks.trickle,
        http_attacks.header_flood,
        http_attacks.unread_answers,
        http_attacks.many_requests,
        http_attacks.escaped_cookies,
        http_attacks.control_characters,
        session_attacks.silent_connections,
        session_attacks.empty_fragments,
        session_attacks.fragments_and_pings,
        session_attacks.pings,
        session_attacks.made_up_acknowledgements,
        session_attacks.heartbeats,
        session_attacks.room_patterns,
    )
}
