from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ('imgo_client', '0002_delivery_answer'),
    ]

    operations = [
        migrations.AlterField(
            model_name='outbox',
            name='target',
            field=models.CharField(choices=[('key', 'Key'), ('keys', 'Keys'), ('room', 'Room'), ('all', 'All'), ('stop', 'Cancel')], max_length=4),
        ),
    ]
