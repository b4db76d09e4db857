from django.db import models


class Order(models.Model):
    shop = models.IntegerField(db_index=True)
    title = models.CharField(max_length=80)

    class Meta:
        ordering = ("id",)

    def as_json(self) -> dict[str, object]:
        return {"id": self.pk, "title": self.title}
