"""The page of customers and staff, and what they do there."""

from django import forms
from django.contrib import messages
from django.contrib.auth.decorators import login_required, user_passes_test
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.views.decorators.http import require_GET, require_http_methods, require_POST

from examples.orders import services
from examples.orders.models import Article, Order
from examples.orders.rooms import DESK

SHOWN = 50  # orders


class OrderForm(forms.Form):
    """Form of an order: the article."""

    article = forms.ModelChoiceField(Article.objects.order_by("pk"), empty_label=None)


class StepForm(forms.Form):
    """An order, and how far it was when the button was pressed: two clicks are one step."""

    order = forms.IntegerField()
    step = forms.IntegerField()


@login_required
@require_http_methods(["GET", "POST"])
def orders(request: HttpRequest) -> HttpResponse:
    """The page; a POST orders something."""
    assert request.user.is_authenticated
    form = OrderForm(request.POST or None)
    if form.is_valid():
        try:
            services.place(request.user, form.cleaned_data["article"])
        except services.SoldOut:
            messages.warning(request, "Sold out. Nothing was ordered.")
        return redirect("orders")
    rooms = [DESK] if request.user.is_staff else []
    return render(request, "orders/orders.html", {"form": form, "rooms": rooms})


@login_required
@require_GET
def listed(request: HttpRequest) -> JsonResponse:
    """The user's own orders; for staff everyone's."""
    assert request.user.is_authenticated
    found = Order.objects.select_related("article", "customer").order_by("-pk")
    if not request.user.is_staff:
        found = found.filter(customer=request.user)
    return JsonResponse({"orders": [order.as_message() for order in found[:SHOWN]]})


@user_passes_test(lambda user: user.is_staff)
@require_POST
def advance(request: HttpRequest) -> HttpResponse:
    """Move an order one step further."""
    form = StepForm(request.POST)
    if not form.is_valid():
        return JsonResponse(form.errors, status=400)
    order = get_object_or_404(Order, pk=form.cleaned_data["order"])
    order.step = form.cleaned_data["step"]
    services.advance(order)
    return redirect("orders")
