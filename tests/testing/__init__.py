"""Tests of `eyewall.testing`."""
