"""Counts your visits, each browser's on its own. Run it, then open http://localhost:8888."""

import asyncio

from tornado.web import Application, RequestHandler

from eyewall import SessionMixin


class Counter(SessionMixin, RequestHandler):
    def get(self) -> None:
        self.session["visits"] = self.session.get("visits", 0) + 1
        self.write(f"Visits: {self.session['visits']}\n")


async def main() -> None:
    """Serve until Ctrl-C."""
    Application([("/", Counter)]).listen(8888)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main())
