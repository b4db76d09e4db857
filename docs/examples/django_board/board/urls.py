from django.urls import include, path

from pgfanout.django import healthz

from . import views

urlpatterns = [
    path("shops/<int:shop>/", views.board, name="board"),
    path("shops/<int:shop>/orders", views.orders, name="orders"),
    path("shops/<int:shop>/events", views.events, name="events"),
    path("healthz", healthz),
    path("_pgfanout/", include("pgfanout.django.urls")),
]
