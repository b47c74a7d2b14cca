"""Weight files of a model in a folder: finding shards that an index names and that are missing."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Collection
from pathlib import Path

from phasebus.initializer.downloads.modes import is_bookkeeping
from phasebus.telemetry.files import read_regular

_WEIGHTS = ("*.safetensors", "*.bin", "*.pt", "*.pth", "*.gguf")

_LOADED = (".safetensors", ".bin", ".pt")
"""The kinds of weights of which vLLM loads all in a folder, if there are any, the preferred kind first."""

_SHARD = re.compile(r"(?P<stem>.+-)(?P<number>\d{5})-of-(?P<total>\d{5})\.safetensors")
"""The file name of a shard, as `huggingface_hub` and transformers write it."""

_GGUF_PART = re.compile(r"(?P<stem>.+-)(?P<number>\d{5})-of-(?P<total>\d{5})\.gguf")
"""The file name of a part, as ``gguf-split`` writes it."""

_MAX_INDEX = 200 * 2**20
"""Maximum size of an index that is read, in bytes."""


def missing_shards(folder: Path) -> tuple[str, list[str]] | None:
    """Return the index of a sharded model and the shards that are missing in `folder`; None if none are missing.

    An index without any of its shards is ignored as a leftover if the folder has other weights.
    """
    weights = {file.name for pattern in _WEIGHTS for file in _visible(folder, pattern) if os.path.isfile(file)}
    for kind in ("*.safetensors", "*.bin"):
        for index in sorted(_visible(folder, f"{kind}.index.json")):
            named = _shards(index)
            missing = sorted(name for name in named - weights if not os.path.isfile(folder / name))
            if missing and (len(missing) < len(named) or not weights):
                return index.name, missing
        if _visible(folder, kind):  # vLLM and transformers prefer safetensors, so the other index is not used
            return None
    return None


def missing_shards_problem(folder: Path) -> str | None:
    """Return a message about missing shards; None if none are missing."""
    if (found := missing_shards(folder)) is None:
        missing = _missing_numbers(folder)
        return f"{folder} lacks {_listed(missing)}, which the names of its other shards imply" if missing else None
    index, missing = found
    return f"{folder / index} names {_listed(missing)}, and {'it is' if len(missing) == 1 else 'they are'} not there"


def foreign_weights(folder: Path, names: Collection[str]) -> list[str]:
    """Return the weights in `folder` that are not among `names`, and that an engine would load with those that are.

    Args:
        folder: The folder of a model.
        names: The names of the model's files. Engines load no other weights than those of its index, if it has one.
    """
    if any(name.endswith(".safetensors.index.json") for name in names):
        return []
    suffix = next((each for each in _LOADED if any(name.endswith(each) and "/" not in name for name in names)), None)
    return [] if suffix is None else sorted({file.name for file in _visible(folder, f"*{suffix}")}.difference(names))


def missing_parts_problem(path: Path) -> str | None:
    """Return a message about missing parts of a GGUF model in several files, of which `path` is one; None without any."""
    if (part := _GGUF_PART.fullmatch(path.name)) is None:
        return None
    names = (f"{part['stem']}{number:05d}-of-{part['total']}.gguf" for number in range(1, int(part["total"]) + 1))
    missing = [name for name in names if not os.path.isfile(path.with_name(name))]
    return f"{path} is one part of a model, and {_listed(missing)} {_are(missing)} not there" if missing else None


def unfinished_download(folder: Path) -> Path | None:
    """Return a partial file that another downloader has left for a folder without weights; None without one.

    `huggingface_hub` has partial files in ``.cache`` of a folder and in ``blobs`` of its cache, ModelScope in a folder of
    that name.
    """
    found = [*folder.glob(".cache/huggingface/download/**/*.incomplete"), *folder.glob("._____temp/**/*")]
    if folder.parent.name == "snapshots":
        found += folder.parent.parent.glob("blobs/*.incomplete")
    partial = next(filter(os.path.isfile, sorted(found)), None)
    weights = (file for pattern in _WEIGHTS for file in folder.rglob(pattern))
    if partial is None or any(not is_bookkeeping(file.relative_to(folder).as_posix()) for file in weights):
        return None
    return partial


def _visible(folder: Path, pattern: str) -> list[Path]:
    """Return the files in a folder that match a pattern, without hidden ones, which engines do not load either."""
    return [file for file in folder.glob(pattern) if not file.name.startswith(".")]


def _are(names: list[str]) -> str:
    return "is" if len(names) == 1 else "are"


def _listed(names: list[str]) -> str:
    return ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")


def _missing_numbers(folder: Path) -> list[str]:
    """Return the missing shards of a model without an index, if all its safetensors files are shards of one set."""
    names = {file.name for file in _visible(folder, "*.safetensors")}
    shards = [matched for name in names if (matched := _SHARD.fullmatch(name)) is not None]
    sets = {(shard["stem"], shard["total"]) for shard in shards}
    if len(shards) != len(names) or len(sets) != 1 or _visible(folder, "*.safetensors.index.json"):
        return []
    ((stem, total),) = sets
    return sorted({f"{stem}{number:05d}-of-{total}.safetensors" for number in range(1, int(total) + 1)} - names)


def _shards(index: Path) -> set[str]:
    try:
        shards = set(json.loads(read_regular(index, _MAX_INDEX, follow=True))["weight_map"].values())
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return set()
    return {name for name in shards if isinstance(name, str) and name}
