"""Engines: what serves the model once the node is up. `protocol` is what an engine offers, `registry` finds it by name.

This file imports neither: every process of a watched vLLM imports it with `vllm.inside`.
"""
