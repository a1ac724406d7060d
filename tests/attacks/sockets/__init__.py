"""Sockets: what strangers, races and broken stores do to them."""
