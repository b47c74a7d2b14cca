"""What to do about an error of a local Ray, whose own message does not say; the errors themselves need Ray."""

from __future__ import annotations

import pytest

from phasebus.initializer.ray.cluster import local_hint


@pytest.mark.parametrize(
    ("error", "environment", "hint"),
    [
        (OSError("AF_UNIX path length cannot exceed 107 bytes: /a/ray/session"), {}, "set RAY_TMPDIR to a folder with"),
        (FileNotFoundError(2, "No such file or directory", "/proc/.ray"), {}, "set HOME to a folder that can be"),
        (PermissionError(13, "Permission denied", "/root/.ray/auth_token"), {}, "or RAY_AUTH_TOKEN_PATH to a file"),
        (RuntimeError("the GCS did not start"), {}, "see /tmp/ray for its logs"),
        (RuntimeError("the GCS did not start"), {"RAY_TMPDIR": "/scratch"}, "see /scratch/ray for its logs"),
        (RuntimeError("the GCS did not start"), {"RAY_TMPDIR": ""}, "see /tmp/ray for its logs"),
    ],
)
def test_hint_names_what_moves_the_folder(error: Exception, environment: dict[str, str], hint: str) -> None:
    assert hint in local_hint(error, environment)
