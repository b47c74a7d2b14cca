"""Measuring starts: what would shorten them, how long those of several configurations take, and which series is slower."""
