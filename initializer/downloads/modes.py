"""The files of a source that a download mode selects.

The modes, and the names that TOKENIZER_ONLY and EXCLUDE_SAFETENSORS select by, are those of Ray Serve LLM 2.60
(`NodeModelDownloadable`, `CloudFileSystem.download_model`).
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from phasebus.initializer.downloads.protocol import RemoteFile
from phasebus.initializer.downloads.settings import DownloadMode

_TOKENIZER = ("tokenizer", "config.json", "chat_template")

_BOOKKEEPING = re.compile(
    r"(?:^|/)(?:\.git/|\.cache/huggingface/|\.\.[^/]|\._[^/]|\.DS_Store(?:/|$)|\.nfs[0-9a-f]{8}|\.fuse_hidden)|^lost\+found/"
)


def is_bookkeeping(name: str) -> bool:
    """Return whether a file is no part of a model, but of what keeps the model's folder.

    These are the folders of git, where git-lfs has the weights again, and of `hf download --local-dir`, with partial files;
    the names that begin with two dots, behind which Kubernetes has the files of a ConfigMap or a projected volume again; the
    files of macOS for the attributes of others (``._model.safetensors``), which are no weights; the files that NFS and FUSE
    keep while a program has them open; and ``lost+found`` of a volume.
    """
    return _BOOKKEEPING.search(name) is not None


def select_files(files: Iterable[RemoteFile], mode: DownloadMode) -> list[RemoteFile]:
    """Return those of `files` that `mode` selects; none of them `is_bookkeeping`."""
    if mode == "NONE":
        return []
    files = [file for file in files if not is_bookkeeping(file.name)]
    if mode == "TOKENIZER_ONLY":
        return [file for file in files if any(part in file.name for part in _TOKENIZER)]
    if mode == "EXCLUDE_SAFETENSORS":
        return [file for file in files if not file.name.endswith(".safetensors")]
    return files
