"""The room's page, and saying something."""

from django.contrib.auth.decorators import login_required
from django.db import transaction
from django.forms import modelform_factory
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import render
from django.views.decorators.http import require_http_methods

from examples.chat.models import Line
from push import push_to_room

ROOM = "chat"

LineForm = modelform_factory(Line, fields=["text"])


@login_required
@require_http_methods(["GET", "POST"])
def chat(request: HttpRequest) -> HttpResponse:
    """The page; a POST says something."""
    assert request.user.is_authenticated
    form = LineForm(request.POST or None)
    if request.method == "GET":
        return render(request, "chat/chat.html", {"form": form, "room": ROOM})
    if not form.is_valid():
        return JsonResponse(form.errors, status=400)
    form.instance.author = request.user
    with transaction.atomic():  # stored and pushed, or neither
        push_to_room(ROOM, form.save().as_message())
    return HttpResponse(status=204)
