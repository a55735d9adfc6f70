"""Statements on Postgres that record receipts and settle what they acknowledge.

Rows are locked in one order, so that two nodes that settle the same rows cannot deadlock. The
receipts come as one JSON text, because psycopg writes arrays in Python, a value at a time.
"""

# A row of a device can be there if the scope of the key was `each`. It ends with an event too.
_RECORD = """
    WITH given AS (
        SELECT (receipt->>0)::bigint AS message_id, receipt->>1 AS key, receipt->>2 AS kind,
               receipt->>3 AS session, (receipt->>4)::float8 AS age, place
        FROM json_array_elements(%s::json) WITH ORDINALITY AS receipts (receipt, place)
    ),
    owed AS (
        SELECT p.id FROM offline_pending p
        JOIN (SELECT DISTINCT message_id, key FROM given WHERE kind <> 'sent') g
            USING (message_id, key)
        ORDER BY p.id FOR UPDATE OF p
    ),
    gone AS (
        DELETE FROM offline_pending p USING owed WHERE p.id = owed.id
        RETURNING p.message_id, p.key, p.device
    ),
    settling AS (
        SELECT min(place) AS place, gone.device FROM given JOIN gone USING (message_id, key)
        WHERE kind <> 'sent' GROUP BY message_id, key, gone.device
    ),
    recorded AS (
        INSERT INTO offline_event (message_id, key, kind, session, reason, at, device)
        SELECT message_id, key, CASE WHEN s.place IS NULL THEN 'sent' ELSE kind END, session, '',
               statement_timestamp() - age * interval '1 second', coalesce(s.device, '')
        FROM given LEFT JOIN settling s USING (place)
        WHERE {condition}
        ORDER BY given.place
    )
    SELECT count(*) FROM gone
"""
# Of keys with the scope `each`. A row without a device is for the first device that acknowledges
# it, unless the clients that give no name are a device of the key.
_RECORD_OF_DEVICES = """
    WITH given AS (
        SELECT (receipt->>0)::bigint AS message_id, receipt->>1 AS key, receipt->>2 AS kind,
               receipt->>3 AS session, (receipt->>4)::float8 AS age, receipt->>5 AS device, place
        FROM json_array_elements(%s::json) WITH ORDINALITY AS receipts (receipt, place)
    ),
    owed AS (
        SELECT p.id FROM offline_pending p
        JOIN (SELECT DISTINCT message_id, key, device FROM given WHERE kind <> 'sent') g
            ON g.message_id = p.message_id AND g.key = p.key
            AND (g.device = p.device OR p.device = '' AND NOT EXISTS (
                SELECT 1 FROM offline_keydevice d WHERE d.key = p.key AND d.name = ''
            ))
        ORDER BY p.id FOR UPDATE OF p
    ),
    gone AS (
        DELETE FROM offline_pending p USING owed WHERE p.id = owed.id
        RETURNING p.id, p.message_id, p.key, p.device
    ),
    settling AS (
        SELECT DISTINCT ON (gone.id) place
        FROM gone JOIN given
            ON given.message_id = gone.message_id AND given.key = gone.key
            AND given.kind <> 'sent' AND gone.device IN (given.device, '')
        ORDER BY gone.id, given.device = gone.device DESC, place
    ),
    recorded AS (
        INSERT INTO offline_event (message_id, key, kind, session, reason, at, device)
        SELECT message_id, key, CASE WHEN s.place IS NULL THEN 'sent' ELSE kind END, session, '',
               statement_timestamp() - age * interval '1 second', device
        FROM given LEFT JOIN settling s USING (place)
        WHERE {condition}
        ORDER BY given.place
    )
    SELECT place FROM settling
"""
_ONCE = "s.place IS NOT NULL OR kind <> 'acknowledged'"
# A condition of its own: the usual one need not search for recorded deliveries. Only a receipt
# that was written before finds its pending row gone and its session's delivery recorded.
_AGAIN = """s.place IS NOT NULL OR kind <> 'acknowledged' AND NOT EXISTS (
            SELECT 1 FROM offline_event e
            WHERE e.message_id = given.message_id AND e.key = given.key
                AND e.session = given.session AND e.kind IN ('sent', 'received')
        )"""

_STATEMENTS = {
    again: _RECORD.format(condition=_AGAIN if again else _ONCE) for again in (True, False)
}
_OF_DEVICES = {
    again: _RECORD_OF_DEVICES.format(condition=_AGAIN if again else _ONCE)
    for again in (True, False)
}


def statement(*, again: bool) -> str:
    """Return the statement for a JSON array of `Receipt`s; its row is the number of settled rows.

    `again`: an earlier call may have recorded some of the receipts.
    """
    return _STATEMENTS[again]


def device_statement(*, again: bool) -> str:
    """Return the statement for an array of `DeviceReceipt`s; its rows are the places that settled.

    `again`: as for `statement`.
    """
    return _OF_DEVICES[again]
