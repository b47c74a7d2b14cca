"""What runs inside vLLM's own processes: a plugin that tells this side, over loopback, of steps as they begin and end.

Does nothing in a process that was not started under phasebus. Read from vLLM 0.32 (`vllm/plugins`, `vllm/tracing`).
"""
