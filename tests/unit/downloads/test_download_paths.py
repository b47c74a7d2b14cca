"""The folders that downloads use."""

from __future__ import annotations

from pathlib import Path

import pytest

from phasebus.initializer.downloads.paths import default_folder, expanded


def test_different_sources_have_different_folders() -> None:
    one, other = default_folder("s3", "s3://a/models/tiny"), default_folder("s3", "s3://b/models/tiny")
    assert one != other
    assert one.name.startswith("tiny-")
    assert default_folder("https", "https://a/..").name.startswith("model-")


def test_home_that_is_unknown_is_not_expanded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HOME", raising=False)
    assert expanded(Path("~no-such-user/model")) == Path("~no-such-user/model")
