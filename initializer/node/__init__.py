"""The start of one node: its configuration, context keys, events, phases, and its supervision once it is ready.

Start reading at `startup`, which has the phases in order.
"""
