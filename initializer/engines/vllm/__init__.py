"""vLLM, in an actor of Ray's."""

from phasebus.initializer.engines.vllm.launch import VLLM

__all__ = ["VLLM"]
