"""The examples of docs/api.md and of README, run; the bad inputs of docs/data.md, tried."""

import ast
import logging
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from potstill.cli.main import name_flags
from potstill.data.corpus import load_corpus
from potstill.errors import UserError
from potstill.recipes import _student

ROOT = Path(__file__).parents[1]
BLOCK = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)


def examples(page: str) -> str:
    """Return the Python blocks of a page as one script, whose line numbers are the page's."""
    text = (ROOT / page).read_text()
    lines = [""] * text.count("\n")
    for match in BLOCK.finditer(text):
        start = text[: match.start(1)].count("\n")
        block = match[1].splitlines()
        lines[start : start + len(block)] = block
    return "\n".join(lines)


@pytest.fixture
def user_folder(
    tmp_path: Path, tiny_llama: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Path]:
    """An empty folder but for a file of reviews; "smollm2" is a small random decoder there."""
    cache = tmp_path / "cache"
    shutil.copytree(tiny_llama, cache / "smollm2-135m-instruct-q4_1")
    monkeypatch.setenv("POTSTILL_CACHE", str(cache))
    folder = tmp_path / "user"
    folder.mkdir()
    adjectives = {"good": ("fine", "moving", "clever"), "bad": ("dull", "long", "silly")}
    rows = [
        f"A {adjectives[label][i % 3]} film number {i}.,{label}"
        for i in range(40)
        for label in adjectives
    ]
    (folder / "reviews.csv").write_text("text,label\n" + "\n".join(rows) + "\n")
    monkeypatch.chdir(folder)
    monkeypatch.setattr(_student, "EPOCHS", 2)
    monkeypatch.setattr(_student, "PRETRAIN_EPOCHS", 1)
    level, handlers = logging.root.level, list(logging.root.handlers)
    yield folder
    logging.root.setLevel(level)
    logging.root.handlers[:] = handlers


@pytest.mark.parametrize("page", ["docs/api.md", "README.md"])
def test_examples_run(page: str, user_folder: Path) -> None:
    exec(compile(examples(page), page, "exec"), {"__name__": "example"})


def test_the_comments_of_the_examples_are_true(user_folder: Path) -> None:
    import potstill

    clf = potstill.load()
    assert clf.predict("The books is on the table.") == "unacceptable"
    assert clf.classes_.tolist() == ["unacceptable", "acceptable"]
    assert clf.predict_proba(["The books is on the table."]).shape == (1, 2)


REFUSED = re.compile(r"^\| `(x\.[a-z.]+)`(?:: `(.*)`|, empty) \| (.*) \|$", re.MULTILINE)


def test_bad_data_gets_the_sentence_that_the_docs_say(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    cases = REFUSED.findall((ROOT / "docs/data.md").read_text().replace(r"\|", "|"))
    assert len(cases) > 20
    for name, body, sentence in cases:
        Path(name).write_bytes(ast.literal_eval(f"b'''{body}'''"))
        with pytest.raises(UserError) as caught:
            load_corpus(name)
        assert name_flags(str(caught.value)) == sentence


def test_the_module_map_has_every_module() -> None:
    """Of a package that it names as a whole, the package."""
    page = (ROOT / "docs/architecture.md").read_text()
    page = re.sub(r"\*\*`\w+/`\*\*", "", page)  # a heading names no module
    named = set(re.findall(r"`(\w+\.py|\w+/)`", page)) | {"__init__.py", "__main__.py"}
    one_per_command = re.search(r"(`make`.*): one file per command", page)
    assert one_per_command
    named |= {f"{command}.py" for command in re.findall(r"`(\w+)`", one_per_command[1])}
    source = ROOT / "src" / "potstill"
    files = {file: file.relative_to(source) for file in source.rglob("*.py")}
    missing = [
        str(path)
        for path in files.values()
        if path.name not in named and f"{path.parent.name}/" not in named
    ]
    assert not missing
    assert {name for name in named if name.endswith(".py")} <= {path.name for path in files}
