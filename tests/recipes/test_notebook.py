"""Progress in a notebook. IPython is no dependency: a stand-in has what is used of it."""

import sys
import types
from typing import Any

import pytest

from potstill.recipes import notebook
from potstill.recipes.console import progress_bar
from potstill.recipes.notebook import bar_html, in_notebook


@pytest.fixture
def shown(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Put a notebook's IPython into place; return what it displays."""
    pictures: list[str] = []

    class HTML(str):
        pass

    class Handle:
        def update(self, html: HTML) -> None:
            assert isinstance(html, HTML)
            pictures.append(html)

    def display(html: HTML, *, display_id: bool) -> Any:
        assert isinstance(html, HTML) and display_id
        pictures.append(html)
        return Handle()

    module, displays = types.ModuleType("IPython"), types.ModuleType("IPython.display")
    module.get_ipython = lambda: types.SimpleNamespace(kernel=object())  # type: ignore[attr-defined]
    displays.HTML, displays.display = HTML, display  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "IPython", module)
    monkeypatch.setitem(sys.modules, "IPython.display", displays)
    return pictures


def test_a_bar_is_drawn_and_removed(shown: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(notebook, "SECONDS", 0)
    with progress_bar(100) as show:
        show(0, "epoch 1/2")
        show(50, "epoch 1/2")
    assert len(shown) == 4 and shown[0] == shown[-1] == ""
    assert 'epoch 1/2 <progress value="50" max="100"></progress>' in shown[2]
    assert shown[2].endswith("0:00:00 left")


def test_a_bar_is_not_drawn_too_often(shown: list[str]) -> None:
    with progress_bar(10_000) as show:
        for done in range(10_000):
            show(done, "epoch 1/1")
    assert len(shown) < 10


def test_a_bar_is_removed_after_an_error(shown: list[str]) -> None:
    with pytest.raises(KeyboardInterrupt), progress_bar(10) as show:
        show(1, "epoch 1/1")
        raise KeyboardInterrupt
    assert shown[-1] == ""


def test_outside_a_notebook_there_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not in_notebook()
    module = types.ModuleType("IPython")  # IPython's shell on a terminal has no kernel
    module.get_ipython = lambda: object()  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "IPython", module)
    assert not in_notebook()
    module.get_ipython = lambda: None  # type: ignore[attr-defined]
    assert not in_notebook()


def test_the_picture_of_a_bar() -> None:
    assert bar_html(50, 7250, "<epoch>", 2) == (
        '&lt;epoch&gt; <progress value="50" max="7250"></progress> 2/s, 1:00:00 left'
    )
    assert bar_html(0, 10, "a", 0).endswith("0/s")
