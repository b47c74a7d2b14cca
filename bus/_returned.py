"""What a callback returned: a mapping is merged into the context."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from phasebus.bus._context import Context
from phasebus.bus._keys import Key
from phasebus.bus._view import View, view_of


def write_returned(
    value: Mapping[str, Any], name: str, event: object, context: Context | View | None, view: View | None
) -> View | None:
    """Write the mapping that the callback `name` returned to its view; return the view, a new one if there is none.

    Only what differs from what the callback was given is a write: a callback that returns its context, or a copy of it
    with some more, has written no more than that. One that was given no context has written all that it returns.
    """
    if context is None or value is view:
        return view
    if view is None:
        view = view_of(context, name, event)
        view.update(value)
        return view
    copied = all(key in value for key in view)
    for key, item in list(value.items()):
        if key not in view or _differs(view.rules.get(key), view[key], item, copied=copied):
            view[key] = item
    return view


def _differs(rule: Key[Any] | None, current: Any, returned: Any, *, copied: bool) -> bool:
    """Return whether a `returned` value is a write.

    With a reducer, an equal value may be one more contribution: there, only the very object of a copied context is not.
    """
    if rule is not None and callable(rule.on_conflict):
        return not (copied and returned is current)
    if returned is current:
        return False
    if type(returned) is not type(current) or type(returned) not in _COMPARED:
        return True
    try:
        return bool(returned != current)
    except Exception:  # noqa: BLE001  # a list of arrays, say, cannot be compared
        return True


_COMPARED = frozenset({str, bytes, int, float, bool, list, tuple, dict, set, frozenset})
