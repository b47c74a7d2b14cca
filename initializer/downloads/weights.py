"""Weight files of a model in a folder: finding shards that an index names and that are missing."""

from __future__ import annotations

import json
from pathlib import Path

from phasebus.telemetry.files import read_regular

_WEIGHTS = ("*.safetensors", "*.bin", "*.pt", "*.pth", "*.gguf")

_MAX_INDEX = 200 * 2**20
"""Maximum size of an index that is read, in bytes."""


def missing_shards(folder: Path) -> tuple[str, list[str]] | None:
    """Return the index of a sharded model and the shards that are missing in `folder`; None if none are missing.

    An index without any of its shards is ignored as a leftover if the folder has other weights.
    """
    weights = {file.name for pattern in _WEIGHTS for file in folder.glob(pattern) if file.is_file()}
    for kind in ("*.safetensors", "*.bin"):
        for index in sorted(folder.glob(f"{kind}.index.json")):
            named = _shards(index)
            missing = sorted(name for name in named - weights if not (folder / name).is_file())
            if missing and (len(missing) < len(named) or not weights):
                return index.name, missing
        if any(folder.glob(kind)):  # vLLM and transformers prefer safetensors, so the other index is not used
            return None
    return None


def missing_shards_problem(folder: Path) -> str | None:
    """Return a message about missing shards; None if none are missing."""
    if (found := missing_shards(folder)) is None:
        return None
    index, missing = found
    names = ", ".join(missing[:4]) + (f" and {len(missing) - 4} more" if len(missing) > 4 else "")
    return f"{folder / index} names {names}, and {'it is' if len(missing) == 1 else 'they are'} not there"


def _shards(index: Path) -> set[str]:
    try:
        shards = set(json.loads(read_regular(index, _MAX_INDEX, follow=True))["weight_map"].values())
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return set()
    return {name for name in shards if isinstance(name, str) and name and "\0" not in name}
