import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest

from predictor.lazily import postponed, stand_ins

Write = Callable[..., None]


@pytest.fixture
def seen() -> Iterator[SimpleNamespace]:
    """What the modules of a test can import as `seen`: they note there that they are executed."""
    notes = SimpleNamespace(modules=[], entered=threading.Event(), go_on=threading.Event())
    sys.modules["seen"] = notes  # type: ignore[assignment]
    yield notes
    del sys.modules["seen"]


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seen: SimpleNamespace) -> Iterator[Write]:
    """Writes modules, name=content, a package's parts as package__part; each notes its execution."""
    monkeypatch.syspath_prepend(tmp_path)
    known = set(sys.modules)

    def files(**modules: str) -> None:
        for name, content in modules.items():
            path = tmp_path.joinpath(*name.split("__"))
            is_package = any(other.startswith(f"{name}__") for other in modules)
            path = path / "__init__.py" if is_package else path.with_suffix(".py")
            path.parent.mkdir(exist_ok=True)
            path.write_text(f"import seen\nseen.modules.append(__name__)\n{content}\n", encoding="utf-8")

    yield files
    for name in set(sys.modules) - known:
        del sys.modules[name]


def test_a_stand_in_lasts_as_long_as_its_block(write, seen):
    write(optional="value = 1")
    mine = ModuleType("optional")
    with stand_ins({"optional": mine}):
        import optional

        assert optional is mine
    with stand_ins({"optional": None}), pytest.raises(ModuleNotFoundError, match="optional"):
        import optional
    assert seen.modules == []
    import optional

    assert optional.value == 1


def test_a_module_that_is_there_already_stays(write):
    write(optional="value = 1")
    import optional

    with stand_ins({"optional": None}):
        import optional as again
    assert again is sys.modules["optional"] is optional


def test_a_postponed_module_is_executed_once_when_something_of_it_is_used(write, seen):
    write(heavy="value = 1", user="import heavy\ndef use():\n    return heavy.value")
    with postponed("heavy"):
        import user
    assert seen.modules == ["user"]
    assert (user.use(), user.use()) == (1, 1)
    assert seen.modules == ["user", "heavy"]
    import heavy

    assert type(heavy) is ModuleType
    assert heavy.__spec__.loader is heavy.__loader__
    assert heavy.__loader__.get_source("heavy").endswith("value = 1\n")


def test_after_the_block_imports_are_ordinary_again(write, seen):
    write(heavy="value = 1")
    with postponed("heavy"):
        pass
    import heavy  # noqa: F401

    assert seen.modules == ["heavy"]


CLASS = "class Kind:\n    unit = 's'\n    def __init__(self, size=0):\n        self.size = size"


def test_annotations_and_checks_of_instances_do_not_execute(write, seen):
    write(
        heavy=CLASS,
        user="import heavy\nfrom heavy import Kind\nfrom typing import Optional, Union\n"
        "def one(a: Optional[Kind], b: Union[int, heavy.Kind], c: Kind | None, d: None | Kind, e: list[Kind]): ...\n"
        "def knows(thing):\n    return isinstance(thing, Kind), isinstance(thing, type) and issubclass(thing, Kind)",
    )
    with postponed("heavy"):
        import user
    assert "heavy.Kind" in repr(user.one.__annotations__["c"])
    assert user.knows(3) == user.knows(int) == (False, False)
    assert seen.modules == ["user"]
    import heavy

    assert user.knows(heavy.Kind()) == (True, False)
    assert user.knows(heavy.Kind) == (False, True)


@pytest.mark.parametrize("at_once", [True, False], ids=["within the block", "later"])
@pytest.mark.parametrize(
    "use",
    ["Kind(size=3).size == 3", "Kind.unit == 's'", "types.new_class('Child', (Kind,))().size == 0"],
    ids=["called", "asked", "derived from"],
)
def test_a_promise_is_kept(write, seen, use, at_once):
    write(
        heavy=CLASS,
        user=f"import types\nfrom heavy import Kind\ndef use():\n    return {use}\nif {at_once}:\n    used = use()",
    )
    with postponed("heavy"):
        import user
    assert hasattr(user, "used") is at_once
    assert user.use()
    assert seen.modules == ["user", "heavy"]


def test_a_promise_of_what_is_not_there_is_broken_with_its_name(write):
    write(heavy="", user="from heavy import missing")
    with postponed("heavy"):
        import user
    with pytest.raises(AttributeError, match=r"'heavy' has no attribute 'missing'"):
        user.missing()


def test_the_modules_of_a_postponed_package_are_imported_without_it(write, seen):
    write(
        pack="from pack.more import all", pack__one="from pack import two", pack__two="name = 2", pack__more="all = 3"
    )
    with postponed("pack"):
        from pack.one import two
    assert two.name == 2
    assert seen.modules == ["pack.one", "pack.two"]
    import pack

    assert pack.all == 3
    assert seen.modules[2:] == ["pack", "pack.more"]
    assert pack.one is sys.modules["pack.one"]


def test_what_a_module_imports_finds_it_as_far_as_it_is(write):
    write(
        pack="early = 1\nfrom pack.part import saw\nlate = 2\ndef __getattr__(name):\n    return f'made {name}'",
        pack__part="import pack\nsaw = (pack.early, getattr(pack, 'late', None))",
    )
    with postponed("pack"):
        import pack
    assert pack.saw == (1, None)
    assert (pack.late, pack.other) == (2, "made other")


def test_another_thread_waits_for_the_end_of_the_execution(write, seen):
    write(heavy="seen.entered.set()\nassert seen.go_on.wait(10)\nvalue = 1")
    with postponed("heavy"):
        import heavy
    with ThreadPoolExecutor(2) as threads:
        first = threads.submit(lambda: heavy.value)
        assert seen.entered.wait(10)
        second = threads.submit(lambda: heavy.value)
        seen.go_on.set()
        assert (first.result(10), second.result(10)) == (1, 1)
    assert seen.modules == ["heavy"]


def test_a_module_that_cannot_be_executed_says_so_each_time(write):
    write(heavy="import no_such_module\nvalue = 1")
    with postponed("heavy"):
        import heavy
    for _ in range(2):
        with pytest.raises(ModuleNotFoundError, match="no_such_module"):
            heavy.value  # noqa: B018


def test_a_name_that_does_not_exist_is_not_found(write):
    with postponed("no_such_module"), pytest.raises(ModuleNotFoundError, match="no_such_module"):
        import no_such_module  # noqa: F401
