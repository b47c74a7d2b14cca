"""Context keys: names with the type of their value and the rules for writing it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Generic, Literal, Protocol, TypeVar

from phasebus.bus._checks import shown
from phasebus.bus._errors import InvalidValueError, OptionError
from phasebus.bus._functions import is_async

T = TypeVar("T")

OnConflict = Literal["last", "error"] | Callable[[Any, Any], Any]


class Key(str, Generic[T]):
    """A context key that knows the type of its value; it equals, and may be used as, its plain name.

    Args:
        name: The key's name, as untyped callbacks write it.
        on_conflict: What happens when two callbacks write it during one event: the ``"last"`` write wins, ``"error"``,
            or a reducer ``f(current, new)`` that returns the two merged.
        validate: Called with each value that is written; returns what is stored, or raises ValueError or TypeError.
        doc: One line that says what the value means.

    Raises:
        OptionError: `on_conflict` or `validate` is none of these.

    Attributes:
        has_rule: Whether writing it takes more than storing the value.
    """

    __slots__ = ("__orig_class__", "doc", "has_rule", "on_conflict", "validate")

    on_conflict: OnConflict
    validate: Callable[[Any], T] | None
    doc: str
    has_rule: bool
    __orig_class__: Any  # set by `Key[T](…)`: the type argument, for lists of all keys
    if TYPE_CHECKING:
        swapcase: None  # type: ignore[assignment]  # what makes a key no `PlainName`

    def __new__(
        cls,
        name: str,
        *,
        on_conflict: OnConflict = "last",
        validate: Callable[[Any], T] | None = None,
        doc: str = "",
    ) -> Key[T]:
        if on_conflict not in ("last", "error") and not callable(on_conflict):
            raise OptionError(
                f"on_conflict={shown(on_conflict)}: it is 'last', 'error' or a function that merges two values"
            )
        if validate is not None and not callable(validate):
            raise OptionError(
                f"validate={shown(validate)}: a function is needed that returns what is stored, such as int"
            )
        for option, function in (("on_conflict", on_conflict), ("validate", validate)):
            if callable(function) and is_async(function):
                raise OptionError(
                    f"{option}={shown(function)}: it is asynchronous, and a write is not awaited; give a plain function"
                )
        key = super().__new__(cls, name)
        key.on_conflict = on_conflict
        key.validate = validate
        key.doc = doc
        key.has_rule = on_conflict != "last" or validate is not None
        return key

    def checked(self, value: Any, by: str) -> Any:
        """Return `value` as it is to be stored when `by` writes it.

        Raises:
            InvalidValueError: `validate` refused it.
        """
        if self.validate is None:
            return value
        try:
            return self.validate(value)
        except (ValueError, TypeError) as error:
            raise InvalidValueError(
                f"{by!r} wrote {self!s} = {shown(value)}, which is not valid: {_reason(error)}"
            ) from error

    def __copy__(self) -> Key[T]:
        return self  # nothing of it changes

    def __deepcopy__(self, memo: dict[int, Any]) -> Key[T]:
        return self

    def __reduce__(self) -> tuple[type[str], tuple[str]]:
        """Pickle as the plain name: rules are code, and stay in their process."""
        return str, (str(self),)


class PlainName(Protocol):
    """A string that is no `Key`: one for type checkers, which are to refuse a wrong value for a key.

    For them, a key has no ``swapcase``; every other string has.
    """

    def swapcase(self) -> str:
        """Swap the case."""
        ...


def _reason(error: Exception) -> str:
    """Return what is wrong; of a validation error of pydantic's the reasons alone, without its links."""
    problems = getattr(error, "errors", None)
    if not callable(problems):
        return str(error)
    return "; ".join(": ".join(filter(None, (".".join(map(str, each["loc"])), each["msg"]))) for each in problems())


def check_key(key: object) -> None:
    """Raise TypeError unless `key` can be the key of a context."""
    if not isinstance(key, str):
        raise TypeError(f"{shown(key)} cannot be a key of a context: keys are strings")
