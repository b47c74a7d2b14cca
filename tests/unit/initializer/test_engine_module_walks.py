"""`inspect` in a fork: it finds what it finds elsewhere, and reads no module that the fork has from its server.

In a process of its own, because it is about the modules of a whole process.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

SCRIPT = """
import inspect, sys
from types import ModuleType
from phasebus.initializer.engines.vllm.inside.forkserver.module_walks import limit_module_walks

class Watched(ModuleType):
    read = []

    def __getattribute__(self, name):
        Watched.read.append(name)
        return super().__getattribute__(name)

def builtin():
    "A function with a signature that names two modules."

import known
sys.modules["watched"] = Watched("watched")
code = known.f.__code__
limit_module_walks()
assert "__file__" in Watched.read  # before the fork
Watched.read.clear()
import later
assert inspect.getmodule(later.f.__code__) is later
assert inspect.getmodule(code) is known
assert inspect.getsourcelines(later.f)[0] == ["def f(): pass\\n"]
assert inspect.getmodule(compile("", "no/such.py", "exec")) is None
signature = inspect._signature_fromstr(inspect.Signature, builtin, "(a=known.VALUE, b=later.VALUE, c=None)")
assert [each.default for each in signature.parameters.values()] == [1, 2, None], signature
assert inspect.stack()[0].function == "<module>"
limit_module_walks()
assert inspect.getmodule(later.f.__code__) is later
assert Watched.read == [], Watched.read
"""


def test_limited_walks_find_all_modules_and_read_only_later_ones(tmp_path: Path) -> None:
    for name, value in (("known", 1), ("later", 2)):
        (tmp_path / f"{name}.py").write_text(f"def f(): pass\nVALUE = {value}\n")
    script = f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n{SCRIPT}"
    subprocess.run([sys.executable, "-c", script], check=True, timeout=60)
