"""Which of a source's files a mode asks for.

The modes, and what TOKENIZER_ONLY and EXCLUDE_SAFETENSORS choose by, are those of Ray Serve LLM 2.60
(`NodeModelDownloadable`, `CloudFileSystem.download_model`).
"""

from __future__ import annotations

import fnmatch
from collections.abc import Iterable

from phasebus.initializer.downloads.sources.protocol import RemoteFile
from phasebus.initializer.node.keys import DownloadMode

_TOKENIZER = ("tokenizer", "config.json", "chat_template")
_OTHER_FORMATS = (
    "original/*",
    "onnx/*",
    "pytorch_model*.bin",
    "pytorch_model*.bin.index.json",
    "tf_model*.h5",
    "flax_model*.msgpack",
    "model.ckpt*",
    "rust_model.ot",
)
"""The same weights once more, for other frameworks, as repositories of the hub carry them beside safetensors."""


def wanted(files: Iterable[RemoteFile], mode: DownloadMode) -> list[RemoteFile]:
    """Return those of `files` that `mode` asks for."""
    if mode == "NONE":
        return []
    if mode == "TOKENIZER_ONLY":
        return [file for file in files if any(part in file.name for part in _TOKENIZER)]
    if mode == "EXCLUDE_SAFETENSORS":
        return [file for file in files if not file.name.endswith(".safetensors")]
    return list(files)


def without_duplicate_weights(files: Iterable[RemoteFile]) -> list[RemoteFile]:
    """Return `files` without the weights in other formats, if there are safetensors to use in their place."""
    files = list(files)
    if not any(file.name.endswith(".safetensors") and "/" not in file.name for file in files):
        return files
    return [file for file in files if not any(fnmatch.fnmatchcase(file.name, each) for each in _OTHER_FORMATS)]
