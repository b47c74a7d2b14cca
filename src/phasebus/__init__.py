"""The start-up of an LLM cluster as a stream of typed events.

The rooms, and who may know whom: `phasebus.bus` < `phasebus.telemetry` < `phasebus.observers` < `phasebus.initializer`.
Importing this package loads none of them.
"""

__version__ = "0.1.0"
