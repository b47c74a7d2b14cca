"""The search for kernels in a fork: it is limited to the modules that refer to one."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

PROGRAM = """\
import gc, json, sys
from types import ModuleType
from phasebus.initializer.engines.vllm.inside.forkserver import kernels

class Owner:
    def __init__(self, kernel):
        self.kernel = kernel

def module(name, **attributes):
    made = sys.modules[name] = ModuleType(name)
    made.__loader__ = object()
    vars(made).update(attributes)
    return made

def kernel(): ...
def other(): ...

class Class: ...
Class.kernel = kernel
module("defines", kernel=kernel)
imports = module("imports", renamed=kernel)
module("owns", owner=Owner(kernel))
module("owns_class", Class=Class)
module("unrelated", owner=Owner(other), other=other, listed=[kernel])
vllm = module(kernels.KERNEL_SEARCH[0], sys=sys)

def replace(overrides):
    (original, wrapper), = overrides
    seen.extend(each for each in vllm.sys.modules if each != "__main__")
    assert vllm.sys.version_info == sys.version_info
    for each in list(vllm.sys.modules.values()):
        for name, value in list(vars(each).items()):
            if value is original:
                setattr(each, name, wrapper)

seen = []
vllm._rebind_kernels = replace
PREPARATION
kernels.limit_kernel_search()
vllm._rebind_kernels([(kernel, other)])
print(json.dumps(dict(
    seen=sorted(seen), replaced=imports.renamed is other, restored=vllm.sys is sys,
    frozen=gc.get_freeze_count() > 1000, enabled=gc.isenabled(),
)))
"""


def searched(preparation: str = "") -> dict[str, object]:
    """Return what a program reports that has the search limited, after `preparation`."""
    program = PROGRAM.replace("PREPARATION", preparation)
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    return dict(json.loads(ran.stdout))


@pytest.mark.parametrize(("preparation", "frozen"), [("", False), ("gc.collect(); gc.freeze()", True)])
def test_search_sees_modules_with_a_kernel_and_owners_of_one(preparation: str, frozen: bool) -> None:
    assert searched(preparation) == {
        "seen": ["defines", "imports", "owns", "owns_class"],
        "replaced": True,
        "restored": True,
        "frozen": frozen,
        "enabled": True,
    }


def test_search_sees_all_modules_if_one_has_another_name() -> None:
    report = searched(
        "sys.modules['alias'] = sys.modules.pop('imports')\nsys.modules['imports'] = ModuleType('imports')"
    )
    assert {"unrelated", "alias"} <= set(report["seen"])  # type: ignore[call-overload]
    assert report["replaced"]
    assert report["restored"]
    assert report["enabled"]
