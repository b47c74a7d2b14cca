from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, NamedTuple

import pytest

from phasebus.bus import Bus, CallbackSignatureError, Context, PhaseEvent, subscribe_all
from phasebus.initializer import NODE_KEYS, NODE_PHASES, CallbackError, CustomInitialization, PreInitialization
from phasebus.initializer.node.legacy import from_initialization, from_strategy

GROUP = object()
ENV = {"env_vars": {"HF_HUB_OFFLINE": "1"}}
ARGS = {"max_model_len": 256}


@dataclass
class Made:
    placement_group: Any
    runtime_env: Any
    engine_args: Any


class InAnotherOrder(NamedTuple):
    engine_args: Any
    runtime_env: Any
    placement_group: Any


class Returning:
    """An initialization that returns what it is message to."""

    def __init__(self, made: Any) -> None:
        self.made = made
        self.config: Any = None

    async def initialize(self, llm_config: Any) -> Any:
        self.config = llm_config
        return self.made


class ReturningAtOnce(Returning):
    def initialize(self, llm_config: Any) -> Any:
        return self.made


async def run(callback: Any, *events: type[PhaseEvent], data: Mapping[str, Any] | None = None) -> Context:
    bus = Bus()
    subscribe_all(bus, [callback])
    context = Context({"runtime_env": {}, "engine_args": {}, **(data or {})}, keys=NODE_KEYS)
    for event in events:
        await bus.publish(event(config="the config"), context)
    return context


async def taken_over(made: Any, data: Mapping[str, Any] | None = None) -> Context:
    return await run(from_initialization(Returning(made)), PreInitialization, CustomInitialization, data=data)


FORMS = [
    pytest.param((GROUP, ENV, ARGS), id="triple"),
    pytest.param([GROUP, ENV, ARGS], id="list"),
    pytest.param({"placement_group": GROUP, "runtime_env": ENV, "engine_args": ARGS}, id="mapping"),
    pytest.param(Made(GROUP, ENV, ARGS), id="attributes"),
    pytest.param(InAnotherOrder(ARGS, ENV, GROUP), id="named tuple in another order"),
]


@pytest.mark.anyio
@pytest.mark.parametrize("made", FORMS)
async def test_an_initialization_may_return_any_of_the_forms(made: Any) -> None:
    context = await taken_over(made)
    assert context["placement_group"] is GROUP
    assert context["runtime_env"] == ENV
    assert context["engine_args"] == ARGS


@pytest.mark.anyio
@pytest.mark.parametrize("made", FORMS)
async def test_the_values_of_an_initialization_are_merged_over_the_configuration(made: Any) -> None:
    configured = {
        "runtime_env": {"env_vars": {"HF_HUB_OFFLINE": "0", "TZ": "UTC"}, "working_dir": "/work"},
        "engine_args": {"max_model_len": 512, "dtype": "half"},
    }
    context = await taken_over(made, configured)
    assert context["runtime_env"] == {"env_vars": {"HF_HUB_OFFLINE": "1", "TZ": "UTC"}, "working_dir": "/work"}
    assert context["engine_args"] == {"max_model_len": 256, "dtype": "half"}


@pytest.mark.anyio
@pytest.mark.parametrize("made", [(None, None, None), {"engine_args": None}, SimpleNamespace(runtime_env=None)])
async def test_parts_that_an_initialization_leaves_out_stay_as_configured(made: Any) -> None:
    context = await taken_over(made, {"runtime_env": ENV, "engine_args": ARGS})
    assert context["placement_group"] is None
    assert (context["runtime_env"], context["engine_args"]) == (ENV, ARGS)


@pytest.mark.anyio
async def test_an_initialization_replaces_the_start_and_gets_the_configuration() -> None:
    initialization = Returning((GROUP, ENV, ARGS))
    context = await run(from_initialization(initialization), PreInitialization)
    assert context["skip_default"] is True
    assert initialization.config is None
    await run(from_initialization(initialization), CustomInitialization)
    assert initialization.config == "the config"


@pytest.mark.anyio
async def test_an_initialize_that_is_no_coroutine_function_works_as_one_that_is() -> None:
    context = await run(from_initialization(ReturningAtOnce((GROUP, ENV, ARGS))), CustomInitialization)
    assert (context["placement_group"], context["runtime_env"], context["engine_args"]) == (GROUP, ENV, ARGS)


@pytest.mark.anyio
async def test_changes_are_remembered_by_the_name_of_the_older_form() -> None:
    context = await taken_over((GROUP, ENV, ARGS))
    assert context.history("placement_group")[-1].by == "Returning"
    context = await run(from_strategy(Strategy()), *NODE_PHASES)
    assert context.history("local_node_download_model")[-1].by == "Strategy"


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("made", "message"),
    [
        (None, "returned None"),
        ((), "returned 0 values"),
        ((GROUP,), "returned 1 value;"),
        ((GROUP, ENV), "returned 2 values"),
        ([GROUP, ENV, ARGS, "more"], "returned 4 values"),
        ({}, "returned a mapping with nothing in it"),
        ({"group": GROUP, "env": ENV}, "returned a mapping with 'group', 'env'"),
        (SimpleNamespace(group=GROUP), "returned an object of the class 'SimpleNamespace'"),
        ({1: GROUP}, "returned a mapping with 1"),
        (SimpleNamespace(_engine_args={}), "returned an object of the class 'SimpleNamespace'"),
        ("a triple", "returned an object of the class 'str'"),
    ],
)
async def test_a_return_value_without_the_three_parts_is_rejected(made: Any, message: str) -> None:
    with pytest.raises(CallbackError, match=f"initialize of 'Returning' {re.escape(message)}") as caught:
        await taken_over(made)
    assert "as three values in this order, or by the names placement_group, runtime_env, engine_args" in str(
        caught.value
    )


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("made", "message"),
    [
        ((ENV, GROUP, ARGS), "as placement group a mapping with 'env_vars', as runtime env an object"),
        ((ENV, ARGS, None), "as placement group a mapping with 'env_vars'"),
        ((GROUP, ENV, "max_model_len=256"), "as engine arguments an object of the class 'str'"),
        ({"runtime_env": [("env_vars", {})]}, "as runtime env 1 value"),
    ],
)
async def test_parts_in_the_wrong_order_or_of_the_wrong_type_are_rejected(made: Any, message: str) -> None:
    with pytest.raises(CallbackError, match=message):
        await taken_over(made)


@pytest.mark.anyio
async def test_a_refusal_shows_no_values_for_there_may_be_secrets_among_them() -> None:
    with pytest.raises(CallbackError) as caught:
        await taken_over(({"env_vars": {"HF_TOKEN": "hf_secret"}}, None, None))
    assert "hf_secret" not in str(caught.value)


class Strategy:
    """A strategy that decides every step, in both colours of function."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, Any]] = []

    def download(self, config: Any, context: Context) -> dict[str, Any]:
        self.asked.append(("download", config))
        return {"local_node_download_model": "NONE"}

    async def placement_group(self, config: Any, context: Context) -> dict[str, Any]:
        self.asked.append(("placement_group", config))
        return {"placement_strategy": "SPREAD", "placement_bundles": [{"CPU": 1.0}]}

    async def engine_init(self, config: Any, context: Context) -> dict[str, Any]:
        self.asked.append(("engine_init", config))
        return {"engine_args": {**context["engine_args"], **ARGS}}


class Hooks:
    """Hooks around every step, in both colours of function."""

    def __init__(self, called: list[str]) -> None:
        self.called = called

    def before_initialization(self, context: Context) -> None:
        self.called.append("before_initialization")

    async def before_download(self, context: Context) -> None:
        self.called.append(f"before_download with {context['local_node_download_model']}")

    def after_download(self, context: Context) -> None:
        self.called.append("after_download")

    async def before_placement_group(self, context: Context) -> None:
        self.called.append("before_placement_group")

    async def after_placement_group(self, context: Context) -> None:
        self.called.append("after_placement_group")

    def before_engine_init(self, context: Context) -> None:
        self.called.append("before_engine_init")

    def after_engine_init(self, context: Context) -> None:
        self.called.append("after_engine_init")

    async def after_initialization(self, context: Context) -> None:
        self.called.append("after_initialization")


@pytest.mark.anyio
async def test_the_values_of_a_strategy_are_merged_into_the_context() -> None:
    strategy = Strategy()
    context = await run(from_strategy(strategy), *NODE_PHASES, data={"engine_args": {"dtype": "half"}, "mine": 1})
    assert dict(context) == {
        "mine": 1,
        "runtime_env": {},
        "local_node_download_model": "NONE",
        "placement_strategy": "SPREAD",
        "placement_bundles": [{"CPU": 1.0}],
        "engine_args": {"dtype": "half", "max_model_len": 256},
    }
    assert strategy.asked == [
        ("download", "the config"),
        ("placement_group", "the config"),
        ("engine_init", "the config"),
    ]


@pytest.mark.anyio
async def test_hooks_are_called_around_each_step_and_see_the_values_of_the_strategy() -> None:
    called: list[str] = []
    await run(from_strategy(Strategy(), Hooks(called)), *NODE_PHASES)
    assert called == [
        "before_initialization",
        "before_download with NONE",
        "after_download",
        "before_placement_group",
        "after_placement_group",
        "before_engine_init",
        "after_engine_init",
        "after_initialization",
    ]


@pytest.mark.anyio
async def test_a_strategy_and_hooks_may_leave_steps_out_and_return_nothing() -> None:
    called: list[str] = []
    strategy = SimpleNamespace(download=lambda config, context: called.append("download"), engine_init=None)
    hooks = SimpleNamespace(after_download=lambda context: called.append("after_download"))
    context = await run(from_strategy(strategy, hooks), *NODE_PHASES)
    assert called == ["download", "after_download"]
    assert dict(context) == {"runtime_env": {}, "engine_args": {}}


@pytest.mark.anyio
@pytest.mark.parametrize("wanted", ["NONE", True, [("local_node_download_model", "NONE")]])
async def test_a_strategy_that_returns_no_mapping_is_an_error(wanted: Any) -> None:
    strategy = SimpleNamespace(download=lambda config, context: wanted)
    with pytest.raises(CallbackError, match=r"download of 'SimpleNamespace' returned .*; it returns a mapping"):
        await run(from_strategy(strategy), *NODE_PHASES)


class NoInitialize:
    def setup(self) -> None: ...


class Initialise:
    async def initialise(self, llm_config: Any) -> None: ...


class MisspeltStep:
    def engine_init(self, config: Any, context: Any) -> None: ...
    def downlaod(self, config: Any, context: Any) -> None: ...


class MisspeltHook:
    def after_download(self, context: Any) -> None: ...
    async def before_downlaod(self, context: Any) -> None: ...


class HookByPhase:
    def pre_download(self, context: Any) -> None: ...


class Unrelated:
    def upload(self) -> None: ...


@pytest.mark.parametrize("adapt", [from_initialization, from_strategy, lambda hooks: from_strategy(Strategy(), hooks)])
def test_a_class_in_place_of_an_instance_is_rejected_with_the_remedy(adapt: Any) -> None:
    class Both(Returning, Strategy, Hooks):
        pass

    with pytest.raises(CallbackSignatureError, match=r"'Both', given as \w+, is a class; give an instance, Both\(\)"):
        adapt(Both)


@pytest.mark.parametrize(
    ("initialization", "message"),
    [
        (NoInitialize(), "'NoInitialize', given as initialization, has no method 'initialize'"),
        (SimpleNamespace(initialize=True), "has no method 'initialize'"),
        (None, "'NoneType', given as initialization, has no method 'initialize'"),
        (Initialise(), "has a method 'initialise', which nothing calls; did you mean 'initialize'"),
    ],
)
def test_an_initialization_without_initialize_is_rejected(initialization: Any, message: str) -> None:
    with pytest.raises(CallbackSignatureError, match=message):
        from_initialization(initialization)


@pytest.mark.parametrize(
    ("strategy", "message"),
    [
        (Unrelated(), "'Unrelated', given as strategy, has none of the methods download, placement_group, engine_init"),
        (Hooks([]), "'Hooks', given as strategy, has none of the methods download"),
        (SimpleNamespace(download="NONE"), "has none of the methods download"),
        (
            MisspeltStep(),
            "'MisspeltStep', given as strategy, has a method 'downlaod', .*; did you mean 'download'.*'_downlaod'",
        ),
    ],
)
def test_a_strategy_with_a_step_that_is_never_called_is_rejected(strategy: Any, message: str) -> None:
    with pytest.raises(CallbackSignatureError, match=message):
        from_strategy(strategy)


@pytest.mark.parametrize(
    ("hooks", "message"),
    [
        (Unrelated(), "'Unrelated', given as hooks, has none of the methods before_initialization, before_download, "),
        (
            MisspeltHook(),
            "'MisspeltHook', given as hooks, has a method 'before_downlaod', .*; did you mean 'before_download'",
        ),
        (HookByPhase(), "did you mean 'before_download'"),
    ],
)
def test_hooks_with_one_that_is_never_called_are_rejected(hooks: Any, message: str) -> None:
    with pytest.raises(CallbackSignatureError, match=message):
        from_strategy(Strategy(), hooks)


def test_methods_of_ones_own_are_left_alone() -> None:
    class Own(Strategy, Hooks):
        def __init__(self) -> None:
            Strategy.__init__(self)
            self.called = []

        def upload(self) -> None: ...
        def downloaded(self) -> None: ...  # beside `download`, so none that is misspelt
        def _engine_initt(self) -> None: ...

    class OnlyEngine:
        placement_groups = 2

        def engine_init(self, config: Any, context: Any) -> None: ...
        def unload(self) -> None: ...
        def initialized(self) -> None: ...  # nearly what an initialization has, which a strategy is not

    assert callable(from_strategy(Own(), Own()))
    assert callable(from_strategy(OnlyEngine()))


def test_one_object_may_be_the_strategy_and_the_hooks() -> None:
    class OneOfEach:
        def download(self, config: Any, context: Any) -> None: ...
        def after_placement_group(self, context: Any) -> None: ...

    assert callable(from_strategy(OneOfEach(), OneOfEach()))
