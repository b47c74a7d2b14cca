"""Modes select files as Ray Serve LLM does."""

from __future__ import annotations

import pytest

from phasebus.initializer.downloads.modes import is_bookkeeping, select_files
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


@pytest.mark.parametrize(
    "name",
    [
        ".git/lfs/objects/ab/cd/abcd",
        "part/.git/HEAD",
        ".cache/huggingface/download/model.safetensors.incomplete",
        "..data/config.json",
        "..2026_01_01_00_00_00.123/config.json",
        "lost+found/#12",
        ".fuse_hidden0000000300000001",
    ],
)
def test_what_keeps_the_folder_of_a_model_is_selected_by_no_mode(name: str) -> None:
    assert is_bookkeeping(name)
    modes: tuple[DownloadMode, ...] = ("MODEL_AND_TOKENIZER", "EXCLUDE_SAFETENSORS", "TOKENIZER_ONLY", "NONE")
    assert [select_files([RemoteFile(name=name)], mode) for mode in modes] == [[]] * 4


@pytest.mark.parametrize("name", [".gitattributes", ".github/x", "a.git/x", ".cache/x", ".a", "x..y", "x/.gitignore"])
def test_hidden_file_of_a_model_is_selected(name: str) -> None:
    assert select_files([RemoteFile(name=name)], "MODEL_AND_TOKENIZER")


def test_other_weight_formats_are_kept_without_safetensors() -> None:
    files = [RemoteFile(name=name) for name in ("config.json", "pytorch_model.bin", "original/a.pth")]
    assert without_duplicate_weights(files) == files
    assert without_duplicate_weights([*files, RemoteFile(name="model.safetensors")])[1].name == "model.safetensors"


@pytest.mark.parametrize(
    "name",
    [
        "metal/model.bin",
        "coreml/m.mlpackage/w.bin",
        "openvino/openvino_model.bin",
        "consolidated.00.pth",
        "onnx/m.onnx",
    ],
)
def test_weights_for_other_programs_are_left_out_beside_safetensors(name: str) -> None:
    files = [RemoteFile(name=each) for each in (name, "model-00001-of-00001.safetensors", "2_Dense/model.safetensors")]
    assert without_duplicate_weights(files) == files[1:]
