"""Finding the step that a start hangs in, and the evidence of why.

`finder` decides, from events and samples of processes; `activity` takes the samples; `evidence` collects stacks, sockets and
output of the processes at fault and puts the suspects in order. `phasebus.observers.watchdog` runs them in a thread.
"""
