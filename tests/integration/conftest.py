from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.otlp import OtlpBackend, otlp_backend


@pytest.fixture(scope="session")
def backend(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OtlpBackend]:
    """A real OTLP backend, for the whole session."""
    with otlp_backend(tmp_path_factory.mktemp("otlp")) as running:
        yield running


@pytest.fixture(scope="module")
def ray_cluster() -> Iterator[None]:
    """A local Ray with two CPUs, connected to this process; for one module, because other modules start their own."""
    ray = pytest.importorskip("ray")
    ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False, object_store_memory=128 * 2**20)
    yield
    ray.shutdown()
