from django.db import migrations, models


class AddConstraintConcurrently(migrations.AddConstraint):
    """Add a unique constraint; on Postgres, pushes and acknowledgements go on meanwhile.

    A run that was cut off has left an index that is not valid. The next run builds it anew.
    """

    def database_forwards(self, app_label, schema_editor, from_state, to_state):
        if schema_editor.connection.vendor != 'postgresql':
            super().database_forwards(app_label, schema_editor, from_state, to_state)
            return
        for statement in (
            'ALTER TABLE offline_pending DROP CONSTRAINT IF EXISTS pending_device_once',
            'DROP INDEX CONCURRENTLY IF EXISTS pending_device_once',
            'CREATE UNIQUE INDEX CONCURRENTLY pending_device_once '
            'ON offline_pending (message_id, key, device)',
            'ALTER TABLE offline_pending ADD CONSTRAINT pending_device_once '
            'UNIQUE USING INDEX pending_device_once',
        ):
            schema_editor.execute(statement)


class Migration(migrations.Migration):

    atomic = False

    dependencies = [
        ('offline', '0016_devices_of_keys'),
    ]

    operations = [
        AddConstraintConcurrently(
            model_name='pending',
            constraint=models.UniqueConstraint(
                fields=('message', 'key', 'device'), name='pending_device_once'
            ),
        ),
        migrations.RemoveConstraint(model_name='pending', name='pending_once'),
    ]
