"""Records of pushes, the outbox, and the times that pending rows and messages end."""

import django.db.models.deletion
import django.utils.timezone
from django.db import migrations, models
from django.db.models import F, OuterRef, Subquery


def fill(apps, schema_editor):
    """Give the rows that are there the times and counts of their messages."""
    Message = apps.get_model("offline", "Message")
    Pending = apps.get_model("offline", "Pending")
    Message.objects.update(keep_until=F("expires_at"))
    owner = Message.objects.filter(pk=OuterRef("message_id"))
    Pending.objects.update(expires_at=Subquery(owner.values("expires_at")[:1]))
    count = models.Count("pk")
    for row in Pending.objects.values("message_id").annotate(n=count).iterator():
        Message.objects.filter(pk=row["message_id"]).update(recipients=row["n"])


class Migration(migrations.Migration):

    # The rows are filled before the columns must not be empty, which Postgres wants apart.
    atomic = False

    dependencies = [("offline", "0001_initial")]

    operations = [
        migrations.AddField(
            model_name="message",
            name="ensure",
            field=models.BooleanField(
                default=False, help_text="Waits for room instead of dropping."
            ),
        ),
        migrations.AddField(
            model_name="message",
            name="recipients",
            field=models.IntegerField(
                default=0, help_text="Keys that it was made pending for."
            ),
        ),
        migrations.AddField(
            model_name="message", name="keep_until", field=models.DateTimeField(null=True)
        ),
        migrations.AddField(
            model_name="pending", name="expires_at", field=models.DateTimeField(null=True)
        ),
        migrations.RunPython(fill, migrations.RunPython.noop),
        migrations.AlterField(
            model_name="message",
            name="keep_until",
            field=models.DateTimeField(
                help_text="When the message and its record are forgotten."
            ),
        ),
        migrations.AlterField(
            model_name="pending", name="expires_at", field=models.DateTimeField(db_index=True)
        ),
        migrations.RemoveIndex(model_name="message", name="offline_mes_expires_2f6b20_idx"),
        migrations.AddIndex(
            model_name="message",
            index=models.Index(fields=["keep_until"], name="message_keep_until"),
        ),
        migrations.CreateModel(
            name="Event",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("key", models.CharField(max_length=255)),
                ("kind", models.CharField(
                    choices=[
                        ("sent", "Sent"),
                        ("received", "received by the kernel of an open session"),
                        ("acknowledged", "acknowledged by the client"),
                        ("expired", "Expired"),
                        ("dropped", "Dropped"),
                    ],
                    max_length=12,
                )),
                ("session", models.CharField(blank=True, max_length=40)),
                ("reason", models.CharField(blank=True, max_length=40)),
                ("at", models.DateTimeField()),
                ("message", models.ForeignKey(db_constraint=False, on_delete=django.db.models.deletion.DO_NOTHING, related_name="events", to="offline.message")),
            ],
            options={
                "indexes": [models.Index(fields=["key", "message"], name="event_key")],
            },
        ),
        migrations.CreateModel(
            name="Outbox",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("partition", models.IntegerField()),
                ("partitions", models.IntegerField(help_text="How many there were when it was accepted.")),
                ("created_at", models.DateTimeField(default=django.utils.timezone.now)),
                ("attempts", models.IntegerField(default=0)),
                ("error", models.CharField(blank=True, max_length=500)),
                ("parked_at", models.DateTimeField(blank=True, null=True)),
                ("message", models.ForeignKey(db_constraint=False, db_index=False, on_delete=django.db.models.deletion.DO_NOTHING, to="offline.message")),
            ],
            options={
                "verbose_name_plural": "outbox",
                "indexes": [models.Index(condition=models.Q(("parked_at", None)), fields=["partition", "message"], name="outbox_to_send")],
            },
        ),
    ]
