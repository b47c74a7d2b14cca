"""The callbacks of a configuration: importing them, checking their signatures, and checking the keys they write."""

from __future__ import annotations

import difflib
import importlib
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator

from phasebus.bus import Bus, CallbackSignatureError, Context, Key, PhaseEvent, subscribe_all
from phasebus.initializer.pipeline.control_flow import errors_only
from phasebus.initializer.pipeline.errors import CallbackError, ConfigError
from phasebus.telemetry.redaction import learn_data

_ALIKE = 0.85
"""The minimum similarity, as measured by difflib, of a misspelled key to a known one."""


@contextmanager
def importing_from(folder: Path) -> Iterator[None]:
    """Import modules from `folder` before installed ones in the block, as for a script, and after them from then on.

    A folder with ``vllm`` or ``ray.py`` in it, such as a clone of vLLM, does not replace what the start imports later.
    """
    entry = str(folder)
    sys.path.insert(0, entry)
    try:
        yield
    finally:
        with suppress(ValueError):  # a callback's module has removed it, or replaced the list
            sys.path.remove(entry)
        sys.path.append(entry)


def import_callback(name: str) -> Any:
    """Return the callback that ``module:name`` names; a class is instantiated without arguments.

    Raises:
        ConfigError: There is no such module or name, or importing or instantiating it failed.
    """
    module_name, colon, attribute = name.partition(":")
    if not colon or not module_name or not attribute:
        raise ConfigError(f"callback {name!r} is not of the form module:name, such as my_callbacks:custom_download")
    found = _imported_module(name, module_name)
    with _explained(name, f"finding {attribute!r} in {module_name}"):
        for part in attribute.split("."):
            if not hasattr(found, part):
                raise ConfigError(f"callback {name!r}: {module_name} has no {part!r}{nearest(part, dir(found))}")
            found = getattr(found, part)
    with _explained(name, f"calling {attribute}()"):
        made = found() if isinstance(found, type) else found
    if not callable(made):
        with _explained(name, "showing it"):
            raise ConfigError(f"callback {name!r} is {made!r}, which cannot be called; name a function or a class")
    return made


def _imported_module(name: str, module_name: str) -> Any:
    try:
        with _explained(name, f"importing {module_name}"):
            return importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        missing = str(error.name)
        if module_name != missing and not module_name.startswith(f"{missing}."):
            raise ConfigError(
                f"callback {name!r}: {module_name} imports {missing!r}, which is not installed"
            ) from error
        raise ConfigError(
            f"callback {name!r}: there is no module {missing!r} beside the configuration, in PYTHONPATH or installed"
        ) from error


@contextmanager
def _explained(name: str, action: str) -> Iterator[None]:
    """Convert every exception of the block into a ConfigError, including ``sys.exit`` in a script without a guard.

    Args:
        name: The callback.
        action: What the block does, as a gerund.
    """
    try:
        yield
    except (ConfigError, CallbackSignatureError, ModuleNotFoundError, KeyboardInterrupt):
        raise
    except SystemExit as error:
        raise ConfigError(
            f"callback {name!r}: {action} called sys.exit({error.code!r}); "
            'put the code of a script below `if __name__ == "__main__":`'
        ) from error
    except BaseException as error:
        raise ConfigError(f"callback {name!r}: {action} failed: {type(error).__name__}: {error}") from error


def import_callbacks(callbacks: Iterable[Any]) -> list[Any]:
    """Return `callbacks`, and import those that are names.

    Raises:
        ConfigError: A named callback cannot be imported.
        CallbackSignatureError: An object is not a callback.
    """
    made = [import_callback(each) if isinstance(each, str) else each for each in callbacks]
    bus = Bus()  # subscribing checks the signatures, so an error is raised before the start
    for each in made:
        with _explained(type(each).__name__, "subscribing it"):
            subscribe_all(bus, [each])
    return made


Callbacks = Annotated[list[Any], AfterValidator(import_callbacks)]
"""A field of a configuration: callbacks and observers, or "module:name" for one to import."""


async def publish_phase(bus: Bus, event: PhaseEvent, context: Context, spelling: Spelling) -> None:
    """Publish a phase event, and check the keys that its callbacks have written.

    Raises:
        CallbackError: A callback called ``sys.exit``, misspelled a key, or removed one that is required.
        UnexpectedCancellationError: A callback was cancelled although nothing outside it requested that.
        Exception: The error of a callback, with a note that names the callback.
    """
    learn_data(getattr(event, "config", None))
    try:
        with errors_only():
            await bus.publish(event, context)
    finally:
        learn_data(context.data)  # masks secrets that callbacks wrote
    spelling.check(context)


class Spelling:
    """Finds misspelled keys among those that callbacks have written, and required ones that they have removed.

    Args:
        known: The keys that something reads.
        required: Those of them that have a value from the beginning.
    """

    def __init__(self, known: Iterable[str], required: Iterable[str] = ()) -> None:
        self._known = frozenset(map(str, known))
        self._required = frozenset(required)
        self._meant = lru_cache(1000)(self._look_up)

    def check(self, context: Context) -> None:
        """Raise CallbackError if a key is similar to a known one and no `Key`, or is required and gone."""
        for key in self._required - context.keys():
            by = context.history(key)[-1].by
            raise CallbackError(
                f"the callback {by!r} removed {key!r}, which the phases read; write another value instead"
            )
        for key in context.keys() - self._known:
            if not isinstance(key, Key) and (meant := self._meant(key)) is not None:
                by = context.history(key)[-1].by
                raise CallbackError(
                    f"the callback {by!r} wrote {key!r}, which nothing reads; did you mean {meant!r}? "
                    f"(write a similar key of your own as Key({key!r}))"
                )

    def _look_up(self, key: str) -> str | None:
        swapped = [known for known in self._known if sorted(known) == sorted(key)]
        return next(iter(swapped or difflib.get_close_matches(key, self._known, n=1, cutoff=_ALIKE)), None)


def nearest(name: str, known: Iterable[str]) -> str:
    """Return a suffix for a message that suggests the most similar of the `known` names; "" if none is similar."""
    close = difflib.get_close_matches(name, list(known), n=1, cutoff=0.6)
    return f"; did you mean {close[0]!r}?" if close else ""
