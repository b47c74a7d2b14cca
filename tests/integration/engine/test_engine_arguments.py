"""`phasebus check --engine`: vLLM's own checks of its arguments against the model."""

from __future__ import annotations

from phasebus.initializer.cli.check.models import examine
from phasebus.initializer.node.config import LLMConfig


def test_argument_that_does_not_suit_the_model_is_found_without_a_start(tiny_model: str) -> None:
    config = LLMConfig(
        model=tiny_model, engine_args={"max_model_len": 10**6}, engine_env={"VLLM_CPU_KVCACHE_SPACE": "1"}
    )
    [finding] = [each for each in examine(config, parse=True) if each.name == "values"]
    assert finding.level == "fix"
    assert "User-specified max_model_len (1000000) is greater than the derived max_model_len" in finding.value
