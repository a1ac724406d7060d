"""Tests of `eyewall.core`."""
