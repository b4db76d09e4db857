from django.db import models


class Order(models.Model):
    shop = models.IntegerField()
    title = models.CharField(max_length=80)
