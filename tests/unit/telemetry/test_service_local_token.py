"""A service for other machines, read by programs of the same user on this one."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import pytest

from phasebus.initializer.cli.remote import RemoteStart, WatchError, local_token
from phasebus.telemetry import Metrics, RunIdentity, Status, Timeline
from phasebus.telemetry.service import Access, Server, build_app, offered_token

Serve = Callable[..., Server]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PHASEBUS_RUNTIME_DIR", str(tmp_path / "runtime"))
    monkeypatch.delenv("PHASEBUS_TOKEN", raising=False)
    return tmp_path / "runtime"


@pytest.fixture
def serve(folder: Path) -> Iterator[Serve]:
    timeline = Timeline(RunIdentity.fresh("n", {}))
    timeline.close()
    with ExitStack() as stack:

        def serve(address: str = "0.0.0.0", token: str | None = None, port: int = 0) -> Server:  # every address
            app = partial(build_app, Metrics("1"), Status(), timeline)
            server = Server(app, address, port, access=Access(token=token, own_token="own-token"))
            server.start()
            stack.callback(server.close)
            return server

        yield serve


def test_service_without_a_token_is_read_by_its_user_on_this_machine(serve: Serve, folder: Path) -> None:
    server = serve()
    assert list(RemoteStart(server.url).changes()) == [[], []]
    (file,) = folder.iterdir()
    assert (file.stat().st_mode & 0o777, folder.stat().st_mode & 0o777) == (0o600, 0o700)
    server.close()
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize(("address", "token"), [("127.0.0.1", None), ("0.0.0.0", "t0ken-t0ken"), ("0.0.0.0", "none")])
def test_token_is_offered_only_where_others_have_none(
    serve: Serve, folder: Path, address: str, token: str | None
) -> None:
    assert offered_token(serve(address, token).port) is None
    assert not folder.exists()


def test_token_is_sent_to_this_machine_only(serve: Serve, folder: Path) -> None:
    server = serve()
    assert offered_token(server.port) == "own-token"
    assert local_token(server.url) == "own-token"
    assert local_token(f"http://192.0.2.1:{server.port}") is None
    assert local_token(f"http://localhost.example:{server.port}") is None


def test_service_starts_without_offering_where_the_folder_is_not_private(serve: Serve, folder: Path) -> None:
    folder.mkdir(mode=0o755)
    server = serve()
    assert list(folder.iterdir()) == []
    with pytest.raises(WatchError, match="PHASEBUS_TOKEN"):
        list(RemoteStart(server.url).changes())


def test_service_starts_without_offering_where_no_folder_can_be_written(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("PHASEBUS_RUNTIME_DIR", "XDG_RUNTIME_DIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(tempfile, "gettempdir", lambda: "/proc/self")
    assert offered_token(serve().port) is None


def test_token_of_a_later_service_on_the_port_is_not_removed(serve: Serve, folder: Path) -> None:
    server = serve()
    (file,) = folder.iterdir()
    file.write_text("of-another")
    server.close()
    assert offered_token(server.port) == "of-another"
