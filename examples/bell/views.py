"""The bell's state, reading it, and a page from which users ring each other's."""

from django import forms
from django.contrib.auth import get_user_model
from django.contrib.auth.decorators import login_required
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import redirect, render
from django.views.decorators.http import require_GET, require_http_methods, require_POST

from examples.bell import services


class TellForm(forms.Form):
    """Whom to tell what."""

    user = forms.ModelChoiceField(get_user_model().objects.order_by("pk"), empty_label=None)
    text = forms.CharField(max_length=200)


@login_required
@require_http_methods(["GET", "POST"])
def home(request: HttpRequest) -> HttpResponse:
    """Any page of a site; a POST tells a user something."""
    form = TellForm(request.POST or None)
    if form.is_valid():
        services.notify(form.cleaned_data["user"], form.cleaned_data["text"])
        return redirect("home")
    return render(request, "bell/home.html", {"form": form})


@login_required
@require_GET
def bell(request: HttpRequest) -> JsonResponse:
    """What the bell shows now."""
    assert request.user.is_authenticated
    return JsonResponse(services.state(request.user))


@login_required
@require_POST
def read(request: HttpRequest) -> HttpResponse:
    """The user has read everything."""
    assert request.user.is_authenticated
    services.mark_read(request.user)
    return HttpResponse(status=204)
