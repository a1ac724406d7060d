"""Tests of Eyewall; they mirror `src/eyewall`."""
