"""Running any list of phases: the phases, their callbacks, settings, and the wiring of the built-in observers.

This wing knows no model, node or engine. Start reading at `phases`.
"""
