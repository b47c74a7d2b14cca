"""Public names that are imported when the first one is used, so that a part of a package costs no more than itself."""

from collections.abc import Callable
from importlib import import_module
from importlib.util import find_spec
from sys import modules


def names_of_public(package: str) -> Callable[[str], object]:
    """Return a `__getattr__` for the module `package` that takes its public names from its module `_public`.

    Args:
        package: The name of the package: ``__name__`` in its ``__init__``.
    """

    def get(name: str) -> object:
        # `inspect` asks every module for names such as __wrapped__; and `from PACKAGE import MODULE` asks for the attribute
        # first, maybe while `_public` is being imported
        if name != "__all__" and (name.startswith("__") or find_spec(f"{package}.{name}") is not None):
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        public = import_module(f"{package}._public")
        if name == "__all__" or name in public.__all__:
            value = getattr(public, name)
            setattr(modules[package], name, value)
            return value
        raise AttributeError(f"module {package!r} has no attribute {name!r}")

    return get
