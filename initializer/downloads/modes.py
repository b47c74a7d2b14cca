"""The files of a source that a download mode selects.

The modes, and the names that TOKENIZER_ONLY and EXCLUDE_SAFETENSORS select by, are those of Ray Serve LLM 2.60
(`NodeModelDownloadable`, `CloudFileSystem.download_model`).
"""

from __future__ import annotations

from collections.abc import Iterable

from phasebus.initializer.downloads.protocol import RemoteFile
from phasebus.initializer.downloads.settings import DownloadMode

_TOKENIZER = ("tokenizer", "config.json", "chat_template")


def select_files(files: Iterable[RemoteFile], mode: DownloadMode) -> list[RemoteFile]:
    """Return those of `files` that `mode` selects."""
    if mode == "NONE":
        return []
    if mode == "TOKENIZER_ONLY":
        return [file for file in files if any(part in file.name for part in _TOKENIZER)]
    if mode == "EXCLUDE_SAFETENSORS":
        return [file for file in files if not file.name.endswith(".safetensors")]
    return list(files)
