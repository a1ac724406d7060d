"""Tests of `eyewall.crypto`."""
