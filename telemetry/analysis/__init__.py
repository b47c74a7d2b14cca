"""What a journal says about where the time went. Pure functions of a `Run`."""

from phasebus.telemetry.analysis.blame import BlameRow, blame, time_to_ready

__all__ = ["BlameRow", "blame", "time_to_ready"]
