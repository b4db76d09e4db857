from django.urls import include, path

from pgfanout.django import healthz

from . import views

urlpatterns = [
    path("events", views.events),
    path("order", views.order),
    path("stats", views.stats),
    path("healthz", healthz),
    path("_pgfanout/", include("pgfanout.django.urls")),
]
