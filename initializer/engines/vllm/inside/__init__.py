"""The part that runs inside vLLM's processes: a plugin that reports steps over loopback as they begin and end.

`phasebus.vllm_plugin` starts it, only in processes that were started under phasebus. Read from vLLM 0.32 (`vllm/plugins`, `vllm/tracing`).
"""
