"""WebSockets and streams: they have their session, and end with it."""
