"""What a session is and what must be written. No sockets, no Tornado, no driver."""
