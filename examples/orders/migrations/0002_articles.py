"""Something to order."""

from django.db import migrations

ARTICLES = {"Teapot": 100, "Cup": 1}


def fill(apps, schema_editor):
    """Put the articles in."""
    Article = apps.get_model("orders", "Article")
    for name, stock in ARTICLES.items():
        Article.objects.using(schema_editor.connection.alias).create(name=name, stock=stock)


class Migration(migrations.Migration):
    dependencies = [("orders", "0001_initial")]
    operations = [migrations.RunPython(fill, migrations.RunPython.noop)]
