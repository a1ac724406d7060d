"""Theme and language, kept in cookies: set, read, clear. No session, no store.

python examples/preferences.py --port 7147
curl -c jar -b jar -X POST localhost:7147/preferences -d '{"theme": "dark", "language": "pt"}'
curl -c jar -b jar localhost:7147/
curl -c jar -b jar -X POST localhost:7147/clear-preferences
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json

from tornado.web import Application, HTTPError, RequestHandler

from eyewall import Sessions
from eyewall.tornado.cookies import CookieMixin

THEMES = ("light", "dark")
LANGUAGES = {"en": "Hello", "pt": "Olá"}
YEAR = 365 * 24 * 60 * 60


class Home(CookieMixin, RequestHandler):
    def get(self) -> None:
        theme = self.jar.get("theme", "light")
        language = self.jar.get("language", "en")
        # A plain cookie says what the browser likes to say, so it is looked up and never trusted.
        self.write(
            {
                "theme": theme if theme in THEMES else "light",
                "greeting": LANGUAGES.get(language, LANGUAGES["en"]),
            }
        )


class SavePreferences(CookieMixin, RequestHandler):
    def post(self) -> None:
        try:
            wanted = json.loads(self.request.body)
            theme, language = wanted.get("theme", "light"), wanted.get("language", "en")
        except (ValueError, AttributeError, RecursionError):
            raise HTTPError(400, "the body is not a JSON object") from None
        if theme not in THEMES or language not in list(LANGUAGES):
            raise HTTPError(400, "no such theme or language")
        # httponly=False: the page's own script switches the theme before the first paint.
        self.jar.set("theme", theme, max_age=YEAR, httponly=False).set("language", language, max_age=YEAR)
        self.write({"message": "Preferences saved"})


class ClearPreferences(CookieMixin, RequestHandler):
    def post(self) -> None:
        self.jar.delete("theme").set("language", "", max_age=0)  # two spellings of the same
        self.write({"message": "Preferences cleared"})


def make_app() -> Application:
    """Return the application."""
    return Application(
        [("/", Home), ("/preferences", SavePreferences), ("/clear-preferences", ClearPreferences)],
        sessions=Sessions(backend="memory"),
    )


async def main(port: int) -> None:
    """Serve until Ctrl-C."""
    make_app().listen(port, "127.0.0.1")
    print(f"Serving on http://127.0.0.1:{port}/")
    await asyncio.Event().wait()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--port", type=int, default=7147)
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(main(parser.parse_args().port))
