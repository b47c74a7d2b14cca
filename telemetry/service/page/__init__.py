"""The page: one HTML document with its style and its script inside, and nothing from elsewhere."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from typing import Any, Final

from phasebus.telemetry.formatting import NAME_IS_WORDS, NOTABLE_SECONDS, PREFIXES, TITLE_IS_NAME
from phasebus.telemetry.verdict import FATAL_KINDS, SLOW_FACTOR, SLOW_SECONDS

_SCRIPTS: Final = (
    "state.js",
    "words.js",
    "verdict.js",
    "axis.js",
    "waterfall.js",
    "headline.js",
    "panels.js",
    "details.js",
    "main.js",
)


_RULES: Final = {
    "prefixes": PREFIXES,
    "titleIsName": TITLE_IS_NAME,
    "nameIsWords": NAME_IS_WORDS,
    "slowFactor": SLOW_FACTOR,
    "slowSeconds": SLOW_SECONDS,
    "fatal": FATAL_KINDS,
    "notableSeconds": NOTABLE_SECONDS,
}
"""The rules of the terminal's words, for the page's script."""


def page(embedded: str = "") -> str:
    """Return the document; with `embedded`, a state as JSON, it shows that and asks no server."""
    html = _read("page.html").replace("/* style */", _read("page.css"))
    return html.replace("/* script */", _script()).replace("/* state */", embedded)


@cache
def content_security_policy() -> str:
    """Return the policy under which the page is served: it may run its own script and ask its own server, no more.

    See https://www.w3.org/TR/CSP3/.
    """
    digest = base64.b64encode(hashlib.sha256(_script().encode()).digest()).decode()
    return (
        f"default-src 'none'; script-src 'sha256-{digest}'; style-src 'unsafe-inline'; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'self'"
    )


def page_of(state: Mapping[str, Any]) -> str:
    """Return a document that shows `state`, as `Timeline.state` says it, wherever it is opened."""
    said = json.dumps(state, ensure_ascii=False)
    return page(said.replace("<", "\\u003c"))  # nothing in it may end the element it stands in


def _script() -> str:
    return f'"use strict";\nconst RULES = {json.dumps(_RULES)};\n' + "\n".join(_read(name) for name in _SCRIPTS)


@cache
def _read(name: str) -> str:
    return files(__name__).joinpath(name).read_text(encoding="utf-8")
