from django.http import HttpRequest, HttpResponse, HttpResponseBase, JsonResponse
from django.shortcuts import redirect, render

from pgfanout.django import publish, stream

from .models import Order

# The shop is the tenant. In an application with users, check in each view that the user may see this shop.


def board(request: HttpRequest, shop: int) -> HttpResponse:
    if request.method == "POST":
        order = Order.objects.create(shop=shop, title=request.POST["title"])
        publish("orders", shop, order.as_json(), type="order.made")  # goes out with the commit of this request
        return redirect("board", shop)
    return render(request, "board.html", {"shop": shop, "orders": Order.objects.filter(shop=shop)})


def orders(request: HttpRequest, shop: int) -> JsonResponse:
    return JsonResponse({"orders": [order.as_json() for order in Order.objects.filter(shop=shop)]})


def events(request: HttpRequest, shop: int) -> HttpResponseBase:
    return stream(request, "orders", shop)
