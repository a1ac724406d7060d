"""Faults: each one injected into what really runs, and held against the promises of ``kit``."""
