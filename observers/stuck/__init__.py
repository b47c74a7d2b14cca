"""Finding the step that a start hangs in, and the evidence of why.

`finder` decides, from events and samples of processes; `activity` takes the samples; `evidence` collects stacks, sockets and
output of a process that it suspects; `culprit` orders what it found. `phasebus.observers.watchdog` runs them in a thread.
"""
