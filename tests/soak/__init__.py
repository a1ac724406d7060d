"""Two hours with two hundred users on four stores: ``python -m tests.soak.run``."""
