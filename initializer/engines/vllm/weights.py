"""The files of a model's weights that vLLM will load, as far as they are on this machine. Read from vLLM 0.32."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from phasebus.telemetry.files import read_regular

_INDEX: Final = "model.safetensors.index.json"
_MAX_INDEX_BYTES: Final = 50_000_000
_MAPPED_FORMATS: Final = frozenset({"", "auto", "hf", "safetensors"})
"""The values of --load-format whose weights are read through the page cache."""

_COMMIT: Final = re.compile(r"[0-9a-f]{40}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Weights:
    """Which weights a command loads.

    Attributes:
        model: A folder, or the name of a model; "" if it is not known.
        load_format: The value of --load-format.
        revision: The value of --revision.
        cache: The value of --download-dir.
    """

    model: str = ""
    load_format: str = ""
    revision: str = ""
    cache: str = ""


def weight_files(weights: Weights, environment: Mapping[str, str]) -> Sequence[Path]:
    """Return the files of weights, in the order in which they are loaded; none if they are not on this machine.

    Args:
        weights: Which weights.
        environment: The environment of the command.
    """
    model = weights.model
    if weights.load_format not in _MAPPED_FORMATS or not model:
        return ()
    folder = Path(model)
    if not os.path.isdir(folder):
        found = _snapshot(model, weights.revision or "main", _hub_cache(environment, weights.cache))
        if found is None:
            return ()
        folder = found
    index = _index(folder)
    if index is None:
        files = sorted(path for path in folder.glob("*.safetensors") if not path.name.startswith("consolidated"))
    else:
        files = [folder / name for name in sorted(index) if "/" not in name]
    return [path for path in files if os.path.isfile(path)]


def _index(folder: Path) -> frozenset[str] | None:
    """Return the names of the files that the index names; None without an index."""
    try:
        described: Any = json.loads(read_regular(folder / _INDEX, _MAX_INDEX_BYTES, follow=True))
        return frozenset(str(name) for name in described["weight_map"].values())
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def _hub_cache(environment: Mapping[str, str], cache: str) -> Path:
    """Return the folder of the hub's cache. Source: huggingface_hub, constants.py."""
    if cache or (cache := environment.get("HF_HUB_CACHE", "")):
        return Path(cache)
    base = environment.get("XDG_CACHE_HOME") or str(Path(environment.get("HOME", "/"), ".cache"))
    return Path(environment.get("HF_HOME") or Path(base, "huggingface"), "hub")


def _snapshot(model: str, revision: str, cache: Path) -> Path | None:
    """Return the folder of a model's files in the hub's cache; None without it."""
    if not re.fullmatch(r"[\w.-]+(/[\w.-]+)?", model) or not re.fullmatch(r"[\w.-]+", revision):
        return None
    repository = cache / f"models--{model.replace('/', '--')}"
    try:
        commit = read_regular(repository / "refs" / revision, 100, follow=True).decode().strip()
    except (OSError, ValueError):
        commit = revision
    folder = repository / "snapshots" / commit
    return folder if _COMMIT.fullmatch(commit) and os.path.isdir(folder) else None
