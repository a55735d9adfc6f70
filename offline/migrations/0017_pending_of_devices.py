"""Let a message be pending for several devices of a key.

On Postgres the index is built concurrently, so pushes and acknowledgements go on meanwhile. A run
that was cut off has left an index that is not valid; the next run builds it anew.
"""

from django.db import migrations, models

ONCE = models.UniqueConstraint(fields=('message', 'key', 'device'), name='pending_device_once')


def build(apps, schema_editor):
    """Build the index, then drop the constraint that allowed one row for each key."""
    pending = apps.get_model('offline', 'Pending')
    old = models.UniqueConstraint(fields=('message', 'key'), name='pending_once')
    if schema_editor.connection.vendor != 'postgresql':
        schema_editor.add_constraint(pending, ONCE)
        schema_editor.remove_constraint(pending, old)
        return
    for statement in (
        'ALTER TABLE offline_pending DROP CONSTRAINT IF EXISTS pending_device_once',
        'DROP INDEX CONCURRENTLY IF EXISTS pending_device_once',
        'CREATE UNIQUE INDEX CONCURRENTLY pending_device_once '
        'ON offline_pending (message_id, key, device)',
        'ALTER TABLE offline_pending ADD CONSTRAINT pending_device_once '
        'UNIQUE USING INDEX pending_device_once',
        'ALTER TABLE offline_pending DROP CONSTRAINT IF EXISTS pending_once',
    ):
        schema_editor.execute(statement)


class Migration(migrations.Migration):

    atomic = False

    dependencies = [
        ('offline', '0016_devices_of_keys'),
    ]

    operations = [
        migrations.SeparateDatabaseAndState(
            database_operations=[migrations.RunPython(build)],
            state_operations=[
                migrations.RemoveConstraint(model_name='pending', name='pending_once'),
                migrations.AddConstraint(model_name='pending', constraint=ONCE),
            ],
        ),
    ]
