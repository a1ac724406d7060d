"""Flask: bare, or with Flask-Session on Redis; served by gunicorn with threads."""

from __future__ import annotations

from typing import Any

from flask import Flask, request, session
from flask_session import Session
from redis import Redis

from bench.apps import answers
from bench.apps.wsgi_server import serve

app = Flask(__name__)


def bare() -> str:
    """Touch no session."""
    return answers.BARE


def start() -> str:
    """A first write."""
    return answers.start(session, request.get_data())


def read() -> str:
    """Two values."""
    return answers.read(session)


def count() -> str:
    """Read, add one, save."""
    return answers.count(session)


def login() -> str:
    """A new ID, and a name."""
    user: str = request.get_data(as_text=True)
    session["user"] = user
    interface: Any = app.session_interface
    interface.regenerate(session)
    return user


def big() -> str:
    """A large value."""
    return (
        answers.store_big(session, request.get_data()) if request.method == "POST" else answers.big(session)
    )


def mark() -> str:
    """A key of its own."""
    return answers.mark(session, request.args["k"])


def marks() -> str:
    """How many keys."""
    return answers.marks(session)


def configure(where: answers.Place) -> Flask:
    """Return the application."""
    both = ["GET", "POST"]
    if not where.store:
        for path in answers.METHODS:
            app.add_url_rule(path, path, bare, methods=both)
        return app
    app.config.update(
        SECRET_KEY=answers.SECRET,
        SESSION_TYPE="redis",
        SESSION_REDIS=Redis.from_url(where.store),
        PERMANENT_SESSION_LIFETIME=answers.HOUR,
    )
    Session(app)
    for view in (bare, start, read, count, login, big, mark, marks):
        app.add_url_rule("/" + view.__name__, view.__name__, view, methods=both)
    return app


if __name__ == "__main__":
    here = answers.place()
    serve(configure(here), here.port)
