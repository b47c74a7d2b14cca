"""The middleware on applications that Ray Serve serves, in both of the forms that an ingress has."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Iterator
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from starlette.responses import PlainTextResponse, Response, StreamingResponse

from phasebus.bus import Context
from phasebus.initializer.integrations.serving import (
    ANSWER,
    REQUEST,
    RESPONSE,
    PostRequest,
    PreRequest,
    ServingConfig,
    ServingMiddleware,
)
from phasebus.observers import MetricsObserver
from phasebus.telemetry import Metrics
from tests.support.docs import blocks
from tests.support.programs import free_port

pytestmark = [
    pytest.mark.usefixtures("ray_cluster"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # those of Ray Serve's own code
]


async def preprocess(event: PreRequest, context: Context) -> None:
    request = context[REQUEST]
    if request.url.path.endswith("/hello"):
        request.replace(query="name=" + request.query_params["name"].title())
    if request.url.path.endswith("/secret"):
        context[ANSWER] = PlainTextResponse("not for you", 403)


async def postprocess(event: PostRequest, context: Context) -> None:
    context[RESPONSE].headers["x-served-by"] = "phasebus"


def build() -> FastAPI:
    """Make the application in the replica, for its observers cannot travel to it."""
    metrics = Metrics()
    app = FastAPI()
    received = asyncio.Event()

    async def tokens() -> AsyncIterator[str]:
        yield "first "
        await received.wait()  # for ever, if the middleware held the first chunk back
        yield "second"

    @app.get("/hello")
    def hello(name: str) -> str:
        return f"hello {name}"

    @app.get("/secret")
    def secret() -> str:
        return "the secret"

    @app.get("/stream")
    def stream() -> StreamingResponse:
        return StreamingResponse(tokens(), media_type="text/plain")

    @app.post("/received")
    async def note() -> None:
        received.set()

    @app.get("/metrics")
    def read_metrics() -> Response:
        body, content_type = metrics.render("")
        return Response(body, media_type=content_type)

    callbacks = [preprocess, postprocess, MetricsObserver(metrics)]
    app.add_middleware(ServingMiddleware, config=ServingConfig(callbacks=callbacks))
    return app


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    from ray import cloudpickle, serve

    cloudpickle.register_pickle_by_value(sys.modules[__name__])  # the replicas cannot import a test
    views = FastAPI()
    views.add_middleware(ServingMiddleware, config=ServingConfig(callbacks=[preprocess, postprocess]))

    @serve.deployment(ray_actor_options={"num_cpus": 0.1})
    @serve.ingress(build)
    class Built: ...

    @serve.deployment(ray_actor_options={"num_cpus": 0.1})
    @serve.ingress(views)
    class Views:
        @views.get("/hello")
        def hello(self, name: str) -> str:
            return f"hello {name}"

    port = free_port()
    serve.start(http_options=serve.HTTPOptions(host="127.0.0.1", port=port))
    applications: dict[str, Any] = {"built": Built, "views": Views}
    try:
        for name, deployment in applications.items():
            serve.run(deployment.bind(), name=name, route_prefix=f"/{name}")
        yield f"http://127.0.0.1:{port}"
    finally:
        serve.shutdown()


@pytest.mark.parametrize("application", ["built", "views"])
def test_callbacks_change_the_request_and_the_response(url: str, application: str) -> None:
    response = httpx.get(f"{url}/{application}/hello?name=ada", timeout=60)
    assert response.json() == "hello Ada"
    assert response.headers["x-served-by"] == "phasebus"


def test_a_callback_answers_in_place_of_the_application(url: str) -> None:
    response = httpx.get(f"{url}/built/secret", timeout=60)
    assert (response.status_code, response.text) == (403, "not for you")


def test_a_stream_is_still_one(url: str) -> None:
    with httpx.stream("GET", f"{url}/built/stream", timeout=60) as response:
        chunks = response.iter_raw()
        assert next(chunks) == b"first "
        httpx.post(f"{url}/built/received", timeout=60)
        assert b"".join(chunks) == b"second"


def test_requests_are_counted_in_the_replica(url: str) -> None:
    httpx.get(f"{url}/built/hello?name=bob", timeout=60)
    metrics = httpx.get(f"{url}/built/metrics", timeout=60).text
    assert 'method="GET",outcome="finished",route="/hello",status="200"' in metrics


def test_the_example_of_the_page_runs_as_it_stands(url: str) -> None:
    from ray import serve

    names: dict[str, Any] = {"__name__": "example"}
    exec(compile(blocks("docs/guides/training-data-http.md", "python")[3], "example", "exec", dont_inherit=True), names)
    serve.run(names["application"], name="example", route_prefix="/example")
    response = httpx.get(f"{url}/example/hello?name=ada", timeout=60)
    assert response.json() == "hello ada"
    assert response.headers["x-served-by"] == "phasebus"
    metrics = httpx.get(f"{url}/example/metrics", timeout=60).text
    assert 'application="hello"' in metrics
