"""Whether a folder has weights that vLLM can load: it looks for them itself, but after a minute. Read from vLLM 0.32."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from phasebus.initializer.engines.protocol import EngineError

_FROM_FILES = ("auto", "hf", "mistral", "safetensors", "pt")
_WEIGHTS = (".safetensors", ".bin", ".pt", ".pth", ".gguf")


def check_weights(model: str, args: Mapping[str, Any]) -> None:
    """Look for weights, unless `args` name a `load_format` that takes none or takes them from elsewhere.

    Raises:
        EngineError: The model is a folder without any.
    """
    folder = Path(model)
    if not folder.is_dir() or str(args.get("load_format", "auto")) not in _FROM_FILES:
        return
    names = sorted(file.name for file in folder.iterdir())
    if not any(name.endswith(_WEIGHTS) for name in names):
        there = ", ".join(names[:8]) + (", …" if len(names) > 8 else "")
        raise EngineError(
            f"{folder} has no weights (no file ends in {', '.join(_WEIGHTS)}; there are: {there}); fetch them too "
            "(local_node_download_model: MODEL_AND_TOKENIZER), or start with random ones: engine_args: {load_format: dummy}"
        )
