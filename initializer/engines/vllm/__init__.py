"""vLLM, in a Ray actor or as a command of the user's."""

from phasebus.initializer.engines.vllm.launch import VLLM

__all__ = ["VLLM"]
