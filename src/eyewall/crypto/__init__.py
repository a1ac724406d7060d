"""Secrets: where keys come from, how values are proven ours."""
