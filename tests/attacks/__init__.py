"""Attacks: one file per attack, named after it."""
