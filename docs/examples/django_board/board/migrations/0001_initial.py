from django.db import migrations, models

from pgfanout.django.operations import InstallHistory


class Migration(migrations.Migration):
    initial = True
    operations = (
        InstallHistory(),
        migrations.CreateModel(
            name="Order",
            fields=[
                ("id", models.BigAutoField(primary_key=True, serialize=False, auto_created=True, verbose_name="ID")),
                ("shop", models.IntegerField(db_index=True)),
                ("title", models.CharField(max_length=80)),
            ],
            options={"ordering": ("id",)},
        ),
    )
