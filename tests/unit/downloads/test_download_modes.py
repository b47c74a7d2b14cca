"""Modes select files as Ray Serve LLM does."""

from __future__ import annotations

from phasebus.initializer.downloads.modes import select_files
from phasebus.initializer.downloads.protocol import RemoteFile
from phasebus.initializer.downloads.settings import DownloadMode
from phasebus.initializer.downloads.sources.hub_listing import without_duplicate_weights

NAMES = [
    "config.json",
    "generation_config.json",
    "model.safetensors",
    "tokenizer.model",
    "chat_template.jinja",
    "a.bin",
]


def names(mode: DownloadMode) -> set[str]:
    return {file.name for file in select_files([RemoteFile(name=name) for name in NAMES], mode)}


def test_mode_selects_its_files() -> None:
    assert names("MODEL_AND_TOKENIZER") == set(NAMES)
    assert names("EXCLUDE_SAFETENSORS") == set(NAMES) - {"model.safetensors"}
    assert names("TOKENIZER_ONLY") == set(NAMES) - {"model.safetensors", "a.bin"}
    assert names("NONE") == set()


def test_other_weight_formats_are_kept_without_safetensors() -> None:
    files = [RemoteFile(name=name) for name in ("config.json", "pytorch_model.bin", "original/a.pth")]
    assert without_duplicate_weights(files) == files
    assert without_duplicate_weights([*files, RemoteFile(name="model.safetensors")])[1].name == "model.safetensors"
