from django.db import connection, transaction
from django.http import HttpRequest, HttpResponse, HttpResponseBase, JsonResponse

from pgfanout.django import get_hub, publish, stream

from .models import Order

TENANT = "7d0e2b1c-0000-4000-8000-000000000001"


def events(request: HttpRequest) -> HttpResponseBase:
    Order.objects.count()  # the request has a database connection
    return stream(request, "orders", TENANT, user_id=request.GET.get("user"), detach=request.GET.get("detach"))


def order(request: HttpRequest) -> HttpResponse:
    """Make an order, and roll a savepoint back. With ?fail=1 roll the request back as well."""
    title = request.GET["title"]
    made = Order.objects.create(shop=1, title=title)
    publish("orders", TENANT, {"id": made.pk, "title": title})
    with transaction.atomic():
        publish("orders", TENANT, "of the savepoint")
        transaction.set_rollback(True)
    if "fail" in request.GET:
        transaction.set_rollback(True)
    return HttpResponse(status=204)


def stats(request: HttpRequest) -> JsonResponse:
    now = get_hub().stats()
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT count(*) FROM pg_stat_activity"
            " WHERE datname = current_database() AND application_name = 'django' AND pid <> pg_backend_pid()"
        )
        (others,) = cursor.fetchone()
    return JsonResponse({"detached": now.detached, "kept": now.kept_in_thread, "sessions": others})
