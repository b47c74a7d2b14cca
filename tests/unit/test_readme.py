from __future__ import annotations

import sys
from pathlib import Path

import pytest

from phasebus.initializer import NODE_KEYS, NODE_PHASES, load_config
from tests.support.docs import ROOT, blocks


def test_the_configuration_of_the_readme_is_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_callbacks.py").write_text("def custom_download(phase, config, data): pass\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "my_callbacks", raising=False)
    path = tmp_path / "node.yaml"
    path.write_text(blocks("README.md", "yaml")[0])
    assert load_config(path).engine_args == {"max_model_len": 256}


def test_guide_to_callbacks_names_every_phase_and_every_key() -> None:
    page = (ROOT / "docs" / "guides" / "callbacks.md").read_text()
    for name in (*(event.phase for event in NODE_PHASES), *NODE_KEYS):
        assert f"`{name}" in page or f'"{name}"' in page, name
