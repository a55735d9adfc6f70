from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ('accounts', '0002_apikey_name'),
    ]

    operations = [
        migrations.AddField(
            model_name='token',
            name='join',
            field=models.JSONField(blank=True, db_default=models.Value([], models.JSONField()), default=list, help_text='Rooms that its sessions are in from the start.'),
        ),
    ]
