"""`phasebus check --engine`: vLLM's own checks of its arguments, and of those of its server."""

from __future__ import annotations

from phasebus.initializer.cli.check.models import examine
from phasebus.initializer.node.config import LLMConfig


def test_arguments_that_vllm_rejects_are_found_without_a_start(tiny_model: str) -> None:
    config = LLMConfig.model_validate(
        {
            "model": tiny_model,
            "engine_args": {"max_model_len": 10**6},
            "engine_env": {"VLLM_CPU_KVCACHE_SPACE": "1"},
            "serve": {"args": {"api_kye": "abc"}},
        }
    )
    [finding] = [each for each in examine(config, parse=True) if each.name == "values"]
    assert finding.level == "fix"
    assert "User-specified max_model_len (1000000) is greater than the derived max_model_len" in finding.value
    assert "serve.args: vLLM has no server argument 'api_kye'; did you mean 'api_key'?" in finding.value
