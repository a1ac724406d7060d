"""Real servers for the tests, started without containers and never left behind."""
