from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ('imgo_client', '0001_initial'),
    ]

    operations = [
        migrations.AddField(
            model_name='delivery',
            name='answer',
            field=models.BinaryField(null=True),
        ),
    ]
