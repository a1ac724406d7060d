"""Attacks on cookies, CORS, keys and settings: one file per attack, named after it."""
