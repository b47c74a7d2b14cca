"""Blocking functions in threads."""

from __future__ import annotations

import anyio
import pytest

from phasebus.initializer import DownloadError
from phasebus.initializer.downloads.threads import run_in_thread

pytestmark = pytest.mark.anyio


class PanicException(BaseException):  # as native libraries raise it
    pass


@pytest.mark.parametrize("error", [PanicException("builder error"), SystemExit(3)])
async def test_panic_of_a_library_is_an_error_of_the_download(error: BaseException) -> None:
    def work() -> None:
        raise error

    with pytest.raises(DownloadError, match=rf"a library failed \({type(error).__name__}: {error}\)"):
        await run_in_thread(work, anyio.CapacityLimiter(1), lambda: None)
