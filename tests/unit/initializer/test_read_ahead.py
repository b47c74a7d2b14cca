"""Weights are read into the page cache while a command imports."""

from __future__ import annotations

import ctypes
import json
import mmap
import os
from pathlib import Path

import psutil
import pytest

from phasebus.initializer.engines.vllm.command_line import read_command
from phasebus.initializer.engines.vllm.weights import Weights, weight_files
from phasebus.initializer.node.read_ahead import free_memory, reading_ahead
from tests.support.waiting import wait_until

COMMIT = "a" * 40


def test_files_are_in_the_page_cache_after_they_are_read_ahead(tmp_path: Path) -> None:
    path = tmp_path / "weights"
    with path.open("wb") as file:
        file.write(os.urandom(1 << 20) * 8)
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    if cached_share(path) > 0.5:
        pytest.skip("this file system keeps its pages")
    with reading_ahead([path]) as size:
        assert size == 8 << 20
        wait_until(lambda: cached_share(path) == 1, "the file is in the page cache")
    assert not [each for each in psutil.Process().children() if str(path) in command_line(each)]


def command_line(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except (psutil.NoSuchProcess, psutil.ZombieProcess):  # of another test, and ended
        return []


def test_files_that_exceed_half_of_the_free_memory_are_left_out(tmp_path: Path) -> None:
    for name, size in (("a", 300), ("b", 300), ("c", 100)):
        (tmp_path / name).write_bytes(bytes(size))
    files = [tmp_path / name for name in "abc"]
    with reading_ahead([*files, tmp_path / "missing"], free_bytes=900) as size:
        assert size == 400
    with reading_ahead(files, free_bytes=0) as size:
        assert size == 0
    assert free_memory() > 0


def test_weights_are_the_files_of_the_index_or_all_safetensors(tmp_path: Path) -> None:
    for name in ("b.safetensors", "a.safetensors", "consolidated.safetensors", "pytorch_model.bin"):
        (tmp_path / name).touch()
    assert names(Weights(model=str(tmp_path))) == ["a.safetensors", "b.safetensors"]
    index = {"weight_map": {"x": "b.safetensors", "y": "gone.safetensors", "z": "../outside"}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    assert names(Weights(model=str(tmp_path))) == ["b.safetensors"]
    assert names(Weights(model=str(tmp_path), load_format="dummy")) == []
    (tmp_path / "model.safetensors.index.json").write_text("[1]")
    assert names(Weights(model=str(tmp_path))) == ["a.safetensors", "b.safetensors"]


def test_weights_of_a_model_of_the_hub_are_those_in_its_cache(tmp_path: Path) -> None:
    repository = tmp_path / "hub" / "models--org--name"
    (repository / "snapshots" / COMMIT).mkdir(parents=True)
    (repository / "snapshots" / COMMIT / "model.safetensors").touch()
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(COMMIT)
    found = ["model.safetensors"]
    assert names(Weights(model="org/name"), {"HF_HOME": str(tmp_path)}) == found
    assert names(Weights(model="org/name", revision=COMMIT), {"HF_HUB_CACHE": str(tmp_path / "hub")}) == found
    assert names(Weights(model="org/name", cache=str(tmp_path / "hub")), {}) == found
    for other in ("org/other", "../name", "", "s3://bucket/name"):
        assert names(Weights(model=other), {"HF_HOME": str(tmp_path)}) == []


def test_command_names_its_weights_and_not_the_name_it_serves() -> None:
    command = read_command(["vllm", "serve", "org/name", "--served-model-name", "other", "--revision=v1"])
    assert command is not None
    assert (command.model, command.weights) == ("other", Weights(model="org/name", revision="v1"))


def names(weights: Weights, environment: dict[str, str] | None = None) -> list[str]:
    return [path.name for path in weight_files(weights, environment or {})]


def cached_share(path: Path) -> float:
    """Return the share of a file's pages that are in the page cache (mincore)."""
    with path.open("r+b") as file, mmap.mmap(file.fileno(), 0) as mapped:
        pages = -(-len(mapped) // mmap.PAGESIZE)
        resident = (ctypes.c_ubyte * pages)()
        start = ctypes.c_char.from_buffer(mapped)
        address, start_size = ctypes.addressof(start), len(mapped)
        failed = ctypes.CDLL(None).mincore(ctypes.c_void_p(address), ctypes.c_size_t(start_size), resident)
        del start
        assert not failed
        return sum(each & 1 for each in resident) / pages
