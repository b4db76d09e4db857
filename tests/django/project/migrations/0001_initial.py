from django.db import migrations, models


class Migration(migrations.Migration):
    initial = True
    operations = [  # noqa: RUF012
        migrations.CreateModel(
            name="Order",
            fields=[
                ("id", models.BigAutoField(primary_key=True)),
                ("shop", models.IntegerField()),
                ("title", models.CharField(max_length=80)),
            ],
        )
    ]
