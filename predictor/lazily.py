"""Imports that a process does without, or that wait until somebody needs what they bring.

A library imports at its top whatever any of its users may need. Two tools leave out what a process never touches, and
neither takes anything away for good: `stand_ins` says that an optional part is missing, which its users expect, and
`postponed` finds a module but executes it only when something of it is used.
"""

import importlib
import importlib.util
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import Any, Union


@contextmanager
def stand_ins(modules: Mapping[str, ModuleType | None]) -> Iterator[None]:
    """Within the block, imports of these names find the given modules; None makes a name impossible to import.

    A name that has been imported already stays what it is. After the block everybody gets the real ones.
    """
    put = {name: module for name, module in modules.items() if name not in sys.modules}
    sys.modules.update(put)  # type: ignore[arg-type]  # None is Python's own way to say "not to be found"
    try:
        yield
    finally:
        for name in put:
            del sys.modules[name]


@contextmanager
def postponed(*names: str) -> Iterator[None]:
    """Within the block, modules of these names are found but not executed; a package's submodules are not meant.

    What is asked of one within the block, by `from module import name` or in an annotation, is a `Promise`. After the
    block, the first attribute that the module does not have yet executes it. Until then a package has its imported
    submodules under their own names, even where its `__init__` puts something else there.
    """
    finder = _Finder(names)
    sys.meta_path.insert(0, finder)
    try:
        yield
    finally:
        sys.meta_path.remove(finder)
        finder.open = False


class Promise:
    """Stands for a name of a module that has not been executed; using it executes the module.

    It can be called, derived from, asked for attributes and for instances, and stand in an annotation. It cannot follow
    `except`, and is no dtype: a module's own tables must not keep one.
    """

    def __init__(self, module: ModuleType, name: str) -> None:
        self._module = module
        self._name = name

    def __repr__(self) -> str:
        return f"<promise of {self._module.__name__}.{self._name}>"

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        """What the real one returns."""
        return self._real()(*arguments, **named)

    def __getattr__(self, name: str) -> Any:
        # `typing` asks every annotation for these; an answer would need the module.
        if name.startswith("__"):
            raise AttributeError(name)
        return getattr(self._real(), name)

    def __mro_entries__(self, _: object) -> tuple[Any, ...]:
        return (self._real(),)

    # Nothing is an instance or a child of a class that does not exist yet.
    def __instancecheck__(self, thing: object) -> bool:
        return _loader(self._module) is None and isinstance(thing, self._real())

    def __subclasscheck__(self, kind: type) -> bool:
        return _loader(self._module) is None and issubclass(kind, self._real())

    def __or__(self, other: Any) -> Any:
        return Union[self, other]  # noqa: UP007  # two annotations cannot be joined by `|` when neither is a class

    def __ror__(self, other: Any) -> Any:
        return Union[other, self]  # noqa: UP007

    def _real(self) -> Any:
        _execute(self._module)
        return getattr(self._module, self._name)


class _Unread(ModuleType):
    """A module before its execution, which makes it an ordinary one."""

    def __getattr__(self, name: str) -> Any:
        loader = _loader(self)
        if loader is not None and loader.finder.open and not loader.executing:
            return self._promised(name)
        _execute(self)
        # What an ordinary module answers, also to what its own execution imports.
        return ModuleType.__getattribute__(self, name)

    def _promised(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        submodule = f"{self.__name__}.{name}"
        if hasattr(self, "__path__") and importlib.util.find_spec(submodule) is not None:
            return importlib.import_module(submodule)
        return Promise(self, name)


class _Finder:
    """Finds what the next finders would find, and has it loaded later."""

    def __init__(self, names: Sequence[str]) -> None:
        self.names = names
        self.open = True

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """The spec of a name that may wait; None of any other."""
        spec = PathFinder.find_spec(fullname, path, target) if fullname in self.names else None
        if spec is not None and spec.loader is not None:
            spec.loader = _Later(spec.loader, self)  # type: ignore[assignment]  # a loader needs no base
        return spec


class _Later:
    """A loader that leaves a module as it is until `_execute`."""

    def __init__(self, real: Any, finder: _Finder) -> None:
        self.real = real
        self.finder = finder
        self.lock = threading.RLock()
        self.executing = False

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        """An empty module; the import system sets its path, file and spec."""
        return _Unread(spec.name)

    def exec_module(self, module: ModuleType) -> None:
        """Nothing yet."""


def _loader(module: ModuleType) -> _Later | None:
    """The loader of a module that waits; None once it has been executed."""
    loader = module.__spec__.loader if module.__spec__ is not None else None
    return loader if isinstance(loader, _Later) else None


def _execute(module: ModuleType) -> None:
    """Execute a module that waits, once; other threads wait for the end, its own goes on."""
    if (loader := _loader(module)) is None:
        return
    with loader.lock:
        if loader.executing or _loader(module) is None:
            return
        loader.executing = True
        try:
            loader.real.exec_module(module)
        finally:
            loader.executing = False
        assert module.__spec__ is not None
        module.__spec__.loader = module.__loader__ = loader.real
        module.__class__ = ModuleType
