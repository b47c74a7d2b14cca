from __future__ import annotations

import contextlib
import sys
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import httpx
import pytest
import uvicorn
from anyio.abc import TaskStatus
from prometheus_client import generate_latest
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware.gzip import GZipMiddleware
from starlette.requests import Request as AppRequest
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.testclient import TestClient
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from phasebus.bus import Context, StepEvent, StepFailed, StepFinished, StepsCounted, StepStarted
from phasebus.initializer import CallbackError
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
from tests.support.waiting import wait_until


async def echo(request: AppRequest) -> Response:
    body = (await request.body()).decode()
    return JSONResponse(
        {"method": request.method, "path": request.url.path, "query": request.url.query, "body": body}
        | {"headers": dict(request.headers)}
    )


async def fail(request: AppRequest) -> Response:
    raise LookupError("no such model")


def count_to_three(request: AppRequest) -> Response:
    return StreamingResponse((f"{number} " for number in (1, 2, 3)), media_type="text/plain")


def client(*callbacks: Any, traced_requests_per_second: float = 1000.0) -> TestClient:
    app = Starlette(
        routes=[
            Route("/echo/{id}", echo, methods=["GET", "POST"]),
            Route("/elsewhere", echo, methods=["PUT"]),
            Route("/fail", fail),
            Route("/stream", count_to_three),
        ]
    )
    config = ServingConfig(callbacks=list(callbacks), traced_requests_per_second=traced_requests_per_second)
    app.add_middleware(ServingMiddleware, config=config)
    return TestClient(app, raise_server_exceptions=False)


class Watch:
    def __init__(self) -> None:
        self.events: list[StepEvent] = []

    def observe(self, event: StepEvent) -> None:
        self.events.append(event)


def test_pre_request_changes_the_request_of_the_application() -> None:
    async def preprocess(event: PreRequest, context: Context) -> None:
        request = context[REQUEST]
        request.headers["x-tenant"] = "blue"
        body = (await request.body()).decode()
        request.replace(method="PUT", path="/elsewhere", query="a=1", body=body.upper().encode())

    asked = client(preprocess).post("/echo/1", content=b"hello").json()
    assert (asked["method"], asked["path"], asked["query"], asked["body"]) == ("PUT", "/elsewhere", "a=1", "HELLO")
    assert asked["headers"]["x-tenant"] == "blue"
    assert asked["headers"]["content-length"] == "5"


def test_a_body_that_a_callback_has_read_still_reaches_the_application() -> None:
    seen: list[Any] = []

    async def look(event: PreRequest, context: Context) -> None:
        seen.append(await context[REQUEST].json())

    asked = client(look).post("/echo/1", json={"n": 1}).json()
    assert seen == [{"n": 1}]
    assert asked["body"] == '{"n":1}'


def test_pre_request_may_answer_in_place_of_the_application() -> None:
    def refuse(phase, config, data):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202, RET503
        if phase == "pre_request" and "authorization" not in data["request"].headers:
            return {"answer": PlainTextResponse("who are you?", 401)}

    served = client(refuse)
    refused = served.get("/echo/1")
    assert (refused.status_code, refused.text) == (401, "who are you?")
    assert served.get("/echo/1", headers={"authorization": "Bearer me"}).status_code == 200


def test_post_request_changes_status_headers_and_body_and_sees_an_answer_too() -> None:
    async def answer(event: PreRequest, context: Context) -> None:
        context[ANSWER] = PlainTextResponse("made up")

    async def postprocess(event: PostRequest, context: Context) -> None:
        response = context[RESPONSE]
        response.status = 203
        response.headers["x-served-by"] = "phasebus"
        response.each_chunk(bytes.upper)

    response = client(answer, postprocess).get("/echo/1")
    assert (response.status_code, response.headers["x-served-by"], response.text) == (203, "phasebus", "MADE UP")
    assert "content-length" not in response.headers


def test_chunks_are_changed_one_by_one_by_functions_of_either_sort() -> None:
    chunks: list[bytes] = []

    async def mark(chunk: bytes) -> bytes:
        chunks.append(chunk)
        return chunk + b"| "

    def postprocess(event: PostRequest, context: Context) -> None:
        context[RESPONSE].each_chunk(bytes.strip)
        context[RESPONSE].each_chunk(mark)

    assert client(postprocess).get("/stream").text == "1| 2| 3| "
    assert chunks == [b"1", b"2", b"3"]


def insisting(app: ASGIApp) -> ASGIApp:
    """Return `app` as one that answers with 503 where it fails, and as if nothing had been where that fails, too."""

    async def call(scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await app(scope, receive, send)
        except Exception:  # noqa: BLE001  # as frameworks do
            with contextlib.suppress(HTTPException):
                await PlainTextResponse("sorry", 503)(scope, receive, send)

    return call


@pytest.mark.parametrize("around", [lambda app: app, insisting])
def test_an_error_at_post_request_that_the_application_catches_fails_the_request(around: Any) -> None:
    def refuse(event: PostRequest) -> None:
        raise HTTPException(418) from KeyError("tea")

    watch = Watch()
    app = Starlette(routes=[Mount("/", around(Starlette(routes=[Route("/", count_to_three)])))])
    app.add_middleware(ServingMiddleware, config=ServingConfig(callbacks=[refuse, watch]))
    with TestClient(app) as served, pytest.raises(HTTPException) as raised:
        served.get("/")
    assert raised.value.__notes__ == ["raised by the callback 'refuse' during phase 'post_request'"]
    assert isinstance(raised.value.__cause__, KeyError)
    assert watch.events[-1].attributes["status"] == 500


@pytest.mark.anyio
async def test_once_a_chunk_has_failed_nothing_more_is_sent() -> None:
    def second(chunk: bytes) -> bytes:
        if chunk == b"2":
            raise LookupError("not that one")
        return chunk

    def postprocess(event: PostRequest, context: Context) -> None:
        context[RESPONSE].each_chunk(second)

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for chunk in (b"1", memoryview(b"2"), b"3", b""):
            with contextlib.suppress(LookupError):
                await send({"type": "http.response.body", "body": chunk, "more_body": bool(chunk)})

    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    async def nothing() -> Message:
        return {"type": "http.disconnect"}

    served = ServingMiddleware(app, ServingConfig(callbacks=[postprocess]))
    scope = {"type": "http", "method": "GET", "path": "/", "query_string": b"", "headers": []}
    with pytest.raises(LookupError, match="not that one"):
        await served(scope, nothing, send)
    assert [message.get("body") for message in sent] == [None, b"1"]


def test_a_change_of_one_response_does_not_reach_another() -> None:
    start = {"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"0")]}

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            await send(start)
            await send({"type": "http.response.body"})

    def postprocess(event: PostRequest, context: Context) -> None:
        context[RESPONSE].headers.append("set-cookie", context[REQUEST].query_params["id"])
        context[RESPONSE].status = 201

    served = TestClient(ServingMiddleware(app, ServingConfig(callbacks=[postprocess])))
    assert [served.get(f"/?id={number}").headers["set-cookie"] for number in (1, 2)] == ["1", "2"]
    assert start["status"] == 200


@pytest.mark.anyio
async def test_a_server_is_not_asked_to_send_files_past_the_callbacks() -> None:
    offered: list[Any] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        offered.extend(scope["extensions"])
        await PlainTextResponse("hello")(scope, receive, send)

    async def nothing() -> Message:
        return {"type": "http.disconnect"}

    async def send(message: Message) -> None: ...

    extensions: dict[str, Any] = {"http.response.pathsend": {}, "http.response.debug": {}}
    scope = {"type": "http", "method": "GET", "path": "/", "query_string": b"", "headers": [], "extensions": extensions}
    await ServingMiddleware(app, ServingConfig())(scope, nothing, send)
    assert offered == ["http.response.debug"]


@pytest.mark.parametrize("phase", ["pre_request", "post_request"])
def test_sys_exit_in_a_callback_fails_the_request_and_not_the_server(phase: str) -> None:
    def leave(now: str, config: Any, data: Any) -> None:
        if now == phase:
            sys.exit(3)

    with pytest.raises(CallbackError, match=r"sys.exit\(3\)") as raised, TestClient(client(leave).app) as served:
        served.get("/echo/1")
    assert raised.value.__notes__[0] == f"raised by the callback 'leave' during phase '{phase}'"


def shout(chunk: bytes) -> str:
    return chunk.decode().upper()


def test_a_function_that_makes_no_bytes_of_a_chunk_is_named() -> None:
    def postprocess(event: PostRequest, context: Context) -> None:
        context[RESPONSE].each_chunk(shout)  # type: ignore[arg-type]  # that is the mistake

    with pytest.raises(TypeError, match="bytes, not str") as raised, TestClient(client(postprocess).app) as served:
        served.get("/stream")
    assert raised.value.__notes__ == ["raised by 'shout', given to each_chunk"]


def test_a_compressed_body_is_not_changed_chunk_by_chunk() -> None:
    def postprocess(event: PostRequest, context: Context) -> None:
        context[RESPONSE].each_chunk(bytes.upper)

    app = Starlette(routes=[Route("/", lambda request: PlainTextResponse("hello " * 1000))])
    app.add_middleware(GZipMiddleware)
    app.add_middleware(ServingMiddleware, config=ServingConfig(callbacks=[postprocess]))
    with TestClient(app) as served, pytest.raises(CallbackError, match="in a line after the one that adds it"):
        served.get("/")
    app = Starlette(routes=[Route("/", lambda request: PlainTextResponse("hello " * 1000))])
    app.add_middleware(ServingMiddleware, config=ServingConfig(callbacks=[postprocess]))
    app.add_middleware(GZipMiddleware)
    with TestClient(app) as served:
        assert served.get("/").text == "HELLO " * 1000


@pytest.mark.parametrize(
    ("phase", "written", "says"),
    [
        ("pre_request", {"anwser": PlainTextResponse("no", 403)}, "did you mean 'answer'"),
        ("pre_request", {"answer": "no"}, "'no', which is not callable"),
        ("pre_request", {"request": None}, "wrote 'request', which has no effect"),
        ("pre_request", PlainTextResponse("no", 403), "set context.ANSWER., or return"),
        ("post_request", {"answer": PlainTextResponse("no", 403)}, "set it at pre_request"),
        ("post_request", {"response": PlainTextResponse("no", 403)}, "wrote 'response', which has no effect"),
    ],
)
def test_a_write_without_effect_is_an_error_with_the_callbacks_name(phase: str, written: Any, says: str) -> None:
    def guard(now: str, config: Any, data: Any) -> Any:
        return written if now == phase else None

    with pytest.raises(CallbackError, match=says) as raised, TestClient(client(guard).app) as served:
        served.get("/echo/1")
    assert "the callback 'guard'" in str(raised.value)


def test_callbacks_may_share_keys_of_their_own() -> None:
    def count(phase: str, config: Any, data: Any) -> Any:
        return {"calls": data.get("calls", 0) + 1, "request": data["request"]}

    def show(event: PostRequest, context: Context) -> None:
        context[RESPONSE].headers["x-calls"] = str(context["calls"])

    with client(count, show) as served:
        assert served.get("/echo/1").headers["x-calls"] == "2"


def test_an_error_of_a_callback_fails_the_request_with_the_callbacks_name_on_it() -> None:
    def check_quota(event: PreRequest) -> None:
        raise LookupError("no quota for blue")

    watch = Watch()
    with client(check_quota, watch) as served:
        assert served.get("/echo/1").status_code == 500
    failed = watch.events[-1]
    assert isinstance(failed, StepFailed)
    assert failed.error.__notes__ == ["raised by the callback 'check_quota' during phase 'pre_request'"]


@pytest.mark.parametrize("traced_requests_per_second", [0.0, 1000.0])
def test_an_error_of_an_observer_never_fails_a_request(traced_requests_per_second: float) -> None:
    class Broken:
        def observe(self, event: object) -> None:
            raise RuntimeError("the disk is full")

    with client(Broken(), traced_requests_per_second=traced_requests_per_second) as served:
        assert [served.get("/echo/1").status_code for _ in range(3)] == [200, 200, 200]


def test_a_request_is_a_step_with_its_method_route_and_status() -> None:
    watch = Watch()
    with client(watch) as served:
        served.get("/echo/17")
        served.get("/nowhere")
        served.get("/fail")
    ends = [event for event in watch.events if not isinstance(event, StepStarted)]
    reported = [(end.kind, end.attributes["method"], end.attributes["route"], end.attributes["status"]) for end in ends]
    assert reported[:2] == [("request", "GET", "/echo/{id}", 200), ("request", "GET", "unmatched", 404)]
    assert isinstance(ends[0], StepFinished)
    assert isinstance(ends[2], StepFailed)
    assert isinstance(ends[2].error, LookupError)
    assert ends[2].attributes["status"] == 500


def test_an_unknown_method_is_counted_as_other() -> None:
    watch = Watch()
    with client(watch) as served:
        served.request("BREW", "/echo/1")
    assert {event.attributes["method"] for event in watch.events} == {"other"}


def test_a_request_is_part_of_its_senders_trace_and_hands_it_on() -> None:
    watch = Watch()
    trace, caller = "ab" * 16, "cd" * 8
    with client(watch) as served:
        asked = served.get("/echo/1", headers={"traceparent": f"00-{trace}-{caller}-01"}).json()
        served.get("/echo/2")
    first, second = (event for event in watch.events if isinstance(event, StepStarted))
    assert (first.parent, first.attributes["trace_id"]) == (caller, trace)
    assert asked["headers"]["traceparent"] == f"00-{trace}-{first.step}-01"
    assert second.parent is None
    assert second.attributes["trace_id"] not in (trace, None)


@pytest.fixture(params=[0.0, 1.0, 1000.0])
def traced_requests_per_second(request: pytest.FixtureRequest) -> float:
    return float(request.param)


def test_a_route_below_mounts_has_their_paths_and_the_names_of_their_parameters() -> None:
    watch = Watch()
    inner = Starlette(routes=[Route("/chat/{id}", echo)])
    tenant = Starlette(routes=[Mount("/inner", inner)])
    app = Starlette(
        routes=[Mount("/v1", inner), Mount("/tenants/{tenant:int}", tenant), Mount("/files", StaticFiles())]
    )
    app.add_middleware(ServingMiddleware, config=ServingConfig(callbacks=[watch]))
    with TestClient(app, raise_server_exceptions=False) as served:
        for path in ("/v1/chat/v1", "/tenants/007/inner/chat/7", "/v1/nothing", "/files/x", "/nowhere"):
            served.get(path)
    routes = [event.attributes["route"] for event in watch.events if not isinstance(event, StepStarted)]
    assert routes == ["/v1/chat/{id}", "/tenants/{tenant:int}/inner/chat/{id}", "/v1", "/files", "unmatched"]


def test_a_failed_request_is_reported_with_its_error_when_others_are_counted() -> None:
    watch = Watch()
    with client(watch, traced_requests_per_second=1) as served:
        for _ in range(3):
            served.get("/echo/1")
        served.get("/fail")
        served.get("/fail")
    failed = [event for event in watch.events if isinstance(event, StepFailed)]
    assert [type(event.error) for event in failed] == [LookupError]
    [started] = [event for event in watch.events if isinstance(event, StepStarted) and event.step == failed[0].step]
    assert started.monotonic_ns <= failed[0].monotonic_ns
    assert failed[0].attributes["route"] == "/fail"


def test_every_request_is_counted_whether_traced_or_not(traced_requests_per_second: float) -> None:
    metrics = Metrics()
    with client(MetricsObserver(metrics), traced_requests_per_second=traced_requests_per_second) as served:
        for number in range(5):
            served.get(f"/echo/{number}")
        served.get("/fail")
    text = generate_latest(metrics.registry).decode()
    labels = 'application="serving",method="GET"'
    assert f"phasebus_request_duration_seconds_count{{{labels}}} 5.0" in text
    assert f'phasebus_requests_total{{{labels},outcome="finished",route="/echo/{{id}}",status="200"}} 5.0' in text
    assert f'phasebus_requests_total{{{labels},outcome="failed",route="/fail",status="500"}} 1.0' in text


async def follow(event: StepStarted) -> None: ...


@pytest.mark.parametrize("wants_the_lifespan", [Watch(), follow])
def test_requests_without_a_lifespan_are_served_with_one_warning(
    wants_the_lifespan: Any, caplog: pytest.LogCaptureFixture
) -> None:
    served = client(wants_the_lifespan)
    assert [served.get("/echo/1").status_code for _ in range(2)] == [200, 200]
    [record] = [each for each in caplog.records if each.name == "phasebus.serving"]
    assert "with its lifespan on" in record.message


def test_an_observer_of_phases_is_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    class Phases:
        def observe(self, event: PreRequest) -> None: ...

    with client(Phases()) as served:
        served.get("/echo/1")
    assert "receives no events: requests are steps" in caplog.text


def test_lifespans_and_threads_at_once_do_one_another_no_harm() -> None:
    watch = Watch()
    app = client(watch).app
    with TestClient(app) as outer:
        with TestClient(app) as inner:
            assert [each.get("/echo/1").status_code for each in (outer, inner, TestClient(app))] == [200, 200, 200]
        assert outer.get("/echo/1").status_code == 200
    assert [type(event) for event in watch.events].count(StepFinished) == 3


@pytest.mark.parametrize("traced_requests_per_second", [0.0, 1000.0])
@pytest.mark.parametrize("path", ["/slow", "/slow?fail"])
@pytest.mark.anyio
async def test_a_request_that_outlasts_the_lifespan_ends_as_it_would(
    path: str, traced_requests_per_second: float
) -> None:
    began, go_on, over, answered = anyio.Event(), anyio.Event(), anyio.Event(), []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await returning(scope, receive, send)
            return
        began.set()
        await go_on.wait()
        if scope["query_string"]:
            raise LookupError("no such model")
        await PlainTextResponse("hello")(scope, receive, send)

    moments = iter(("lifespan.startup", "lifespan.shutdown"))

    async def shut_down() -> Message:
        moment = next(moments)
        if moment == "lifespan.shutdown":
            await over.wait()
        return {"type": moment}

    async def send(message: Message) -> None:
        answered.append(message)

    async def ignore(message: Message) -> None: ...

    watch = Watch()
    served = ServingMiddleware(
        app, ServingConfig(callbacks=[watch], traced_requests_per_second=traced_requests_per_second)
    )
    query = path.partition("?")[2].encode()
    scope = {"type": "http", "method": "GET", "path": "/slow", "query_string": query, "headers": []}
    async with anyio.create_task_group() as tasks:

        async def request() -> None:
            with pytest.raises(LookupError) if query else contextlib.nullcontext():
                await served(scope, shut_down, send)
            tasks.cancel_scope.cancel()

        async def live() -> None:
            await served({"type": "lifespan"}, shut_down, ignore)
            go_on.set()

        tasks.start_soon(live)
        await anyio.wait_all_tasks_blocked()
        tasks.start_soon(request)
        await began.wait()
        over.set()
    assert query or answered[-1]["body"] == b"hello"
    assert [type(event) for event in watch.events] == ([StepStarted] if traced_requests_per_second else [])


@pytest.mark.anyio
async def test_a_lifespan_that_ends_leaves_another_of_the_same_thread_alone() -> None:
    watch = Watch()
    served = ServingMiddleware(returning, ServingConfig(callbacks=[watch]))
    ends = anyio.Event(), anyio.Event()

    async def live(end: anyio.Event, *, task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED) -> None:
        moments = iter(("lifespan.startup", "lifespan.shutdown"))

        async def receive() -> Message:
            moment = next(moments)
            if moment == "lifespan.shutdown":
                task_status.started()
                await end.wait()
            return {"type": moment}

        await served({"type": "lifespan"}, receive, ignore)

    async def receive() -> Message:
        return {"type": "http.disconnect"}

    async def ignore(message: Message) -> None: ...

    async with anyio.create_task_group() as outer:
        await outer.start(live, ends[0])
        async with anyio.create_task_group() as inner:
            await inner.start(live, ends[1])
            ends[1].set()
        scope = {"type": "http", "method": "GET", "path": "/", "query_string": b"", "headers": []}
        await served(scope, receive, ignore)
        ends[0].set()
    assert [type(event) for event in watch.events] == [StepStarted, StepFinished]


def test_an_application_may_live_more_than_once() -> None:
    watch = Watch()
    served = client(watch)
    for _ in range(2):
        with served:
            assert served.get("/echo/1").status_code == 200
    assert [type(event) for event in watch.events] == [StepStarted, StepFinished] * 2


async def without_lifespan(scope: Scope, receive: Receive, send: Send) -> None:
    """An application that has no lifespan and raises, as the specification demands."""
    if scope["type"] != "http":
        raise NotImplementedError(scope["type"])
    await PlainTextResponse("hello")(scope, receive, send)


async def returning(scope: Scope, receive: Receive, send: Send) -> None:
    """An application that returns from its lifespan once it has begun."""
    if scope["type"] == "lifespan":
        assert (await receive())["type"] == "lifespan.startup"
        await send({"type": "lifespan.startup.complete"})
        return
    await PlainTextResponse("hello")(scope, receive, send)


def test_an_application_that_returns_from_its_lifespan_is_observed() -> None:
    watch = Watch()
    with TestClient(ServingMiddleware(returning, ServingConfig(callbacks=[watch]))) as served:
        assert served.get("/").text == "hello"
    assert [type(event) for event in watch.events] == [StepStarted, StepFinished]


def test_an_error_before_the_first_lifespan_message_reaches_the_server() -> None:
    app = ServingMiddleware(without_lifespan, ServingConfig(callbacks=[Watch()]))
    with pytest.raises(NotImplementedError, match="lifespan"), TestClient(app):
        pass


def get(port: int) -> str:
    return httpx.get(f"http://127.0.0.1:{port}/", trust_env=False, timeout=60, verify=False).text


@pytest.mark.parametrize(("lifespan", "is_served"), [("auto", True), ("on", False)])
def test_a_server_decides_about_an_application_without_a_lifespan(lifespan: Any, *, is_served: bool) -> None:
    watch = Watch()
    app = ServingMiddleware(without_lifespan, ServingConfig(callbacks=[watch]))
    server = uvicorn.Server(uvicorn.Config(app, port=0, lifespan=lifespan, log_config=None))

    def run() -> None:
        with contextlib.suppress(SystemExit):
            server.run()

    thread = threading.Thread(target=run)
    thread.start()
    wait_until(lambda: server.started or not thread.is_alive(), "the server decides")
    assert server.started is is_served
    if is_served:
        assert get(server.servers[0].sockets[0].getsockname()[1]) == "hello"
    server.should_exit = True
    thread.join()
    assert [type(event) for event in watch.events] == [StepStarted, StepFinished] * is_served


def test_an_application_that_raises_once_it_was_asked_to_start_has_failed_to() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        raise OSError("no disk")

    with (
        pytest.raises(OSError, match="no disk"),
        TestClient(ServingMiddleware(app, ServingConfig(callbacks=[Watch()]))),
    ):
        pass


def test_an_application_that_fails_to_start_is_not_served() -> None:
    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        raise OSError("no disk")
        yield

    app = ServingMiddleware(Starlette(lifespan=lifespan), ServingConfig(callbacks=[Watch()]))
    with pytest.raises(OSError, match="no disk"), TestClient(app):
        pass


def test_an_observer_of_failures_receives_failed_requests() -> None:
    class Failures:
        def __init__(self) -> None:
            self.seen: list[StepFailed] = []

        def observe(self, event: StepFailed) -> None:
            self.seen.append(event)

    failures = Failures()
    with client(failures) as served:
        served.get("/fail")
    assert [type(event.error) for event in failures.seen] == [LookupError]


def test_counts_are_published_when_the_application_fails_at_shutdown() -> None:
    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        yield
        raise OSError("the disk is full")

    metrics = Metrics()
    app = Starlette(routes=[Route("/echo/{id}", echo)], lifespan=lifespan)
    app.add_middleware(
        ServingMiddleware, config=ServingConfig(callbacks=[MetricsObserver(metrics)], traced_requests_per_second=0)
    )
    with pytest.raises(OSError, match="the disk is full"), TestClient(app) as served:
        served.get("/echo/1")
    assert 'route="/echo/{id}",status="200"} 1.0' in generate_latest(metrics.registry).decode()


def test_a_callback_that_fails_at_a_count_is_named_in_the_log_and_ends_nothing(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def tally(event: StepsCounted) -> None:
        raise LookupError("no such tenant")

    with client(tally, traced_requests_per_second=0) as served:
        assert served.get("/echo/1").status_code == 200
    assert [each.name for each in caplog.records].count("phasebus.serving") == 1
    assert "raised by the callback 'tally' during StepsCounted" in caplog.text
