"""The eyewall command."""
