"""Django under gunicorn: bare, with sessions in its Redis cache, or in its signed cookie."""

from __future__ import annotations

from typing import Any

import django
from django.conf import settings
from django.core.wsgi import get_wsgi_application
from django.http import HttpRequest, HttpResponse
from django.urls import path

from bench.apps import answers
from bench.apps.wsgi_server import serve

ENGINES = {"cache": "cache", "cookie": "signed_cookies"}


def bare(_: HttpRequest) -> HttpResponse:
    """Touch no session."""
    return HttpResponse(answers.BARE)


def start(request: HttpRequest) -> HttpResponse:
    """A first write."""
    return HttpResponse(answers.start(request.session, request.body))


def read(request: HttpRequest) -> HttpResponse:
    """Two values."""
    return HttpResponse(answers.read(request.session))


def count(request: HttpRequest) -> HttpResponse:
    """Read, add one, save."""
    return HttpResponse(answers.count(request.session))


def login(request: HttpRequest) -> HttpResponse:
    """What ``django.contrib.auth.login`` does to the session: a new key."""
    request.session.cycle_key()
    request.session["user"] = user = request.body.decode()
    return HttpResponse(user)


def big(request: HttpRequest) -> HttpResponse:
    """A large value."""
    if request.method == "POST":
        return HttpResponse(answers.store_big(request.session, request.body))
    return HttpResponse(answers.big(request.session))


def mark(request: HttpRequest) -> HttpResponse:
    """A key of its own."""
    return HttpResponse(answers.mark(request.session, request.GET["k"]))


def marks(request: HttpRequest) -> HttpResponse:
    """How many keys."""
    return HttpResponse(answers.marks(request.session))


urlpatterns: list[Any] = []


def configure(where: answers.Place) -> None:
    """Set Django up; CommonMiddleware tells the length of each answer, as every Django has it."""
    layers = ["django.middleware.common.CommonMiddleware"]
    views = [bare, start, read, count, login, big, mark, marks]
    if where.way:
        layers.insert(0, "django.contrib.sessions.middleware.SessionMiddleware")
        urlpatterns.extend(path(view.__name__, view) for view in views)
    else:
        urlpatterns.extend(path(name.strip("/"), bare) for name in answers.METHODS)
    settings.configure(
        SECRET_KEY=answers.SECRET,
        ALLOWED_HOSTS=["127.0.0.1"],
        ROOT_URLCONF=__name__,
        MIDDLEWARE=layers,
        CACHES={"default": _cache(where)},
        SESSION_ENGINE=f"django.contrib.sessions.backends.{ENGINES.get(where.way, 'cache')}",
        SESSION_COOKIE_AGE=answers.HOUR,
        USE_TZ=True,
        LOGGING_CONFIG=None,
    )
    django.setup()


def _cache(where: answers.Place) -> dict[str, str]:
    if where.way != "cache":
        return {"BACKEND": "django.core.cache.backends.dummy.DummyCache"}
    return {"BACKEND": "django.core.cache.backends.redis.RedisCache", "LOCATION": where.store}


if __name__ == "__main__":
    here = answers.place()
    configure(here)
    serve(get_wsgi_application(), here.port)
