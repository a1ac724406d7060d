"""Tests of the example programs: each is started as a user would, as a process of its own."""
