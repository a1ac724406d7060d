"""Tests of `eyewall.signin`."""
