"""Models: every order of calls, and random histories against a plain model."""
