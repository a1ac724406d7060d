"""Attacks on signing in and out: one file per attack, named after it."""
