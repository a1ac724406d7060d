"""Tests of the eyewall command."""
