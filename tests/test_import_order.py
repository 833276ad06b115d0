"""Packages import what stands before them in one order, so that none has to know those above it."""

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1] / "src" / "potstill"
# From the bottom up; those of one line know nothing of each other.
ORDER = [
    {
        *("calibration", "errors", "files", "goals", "html", "locks", "manifest", "metrics"),
        *("model_card", "model_card_examples", "model_config", "parsing", "progress", "settings"),
        *("pretrained", "thresholds"),
    },
    {"data", "ops"},
    {"decoder", "student"},
    {"training"},
    {"transfer"},
    {"distillation", "pretraining"},
    {"inference"},
    {"report", "serving"},
    {"recipes"},
    {"cli", "estimator"},
]
LEVEL = {name: level for level, names in enumerate(ORDER) for name in names}


def imported(tree: ast.AST) -> Iterator[tuple[int, str, str]]:
    """Line, text and package of every import of potstill's own, those inside functions too."""
    for node in ast.walk(tree):
        modules = []
        if isinstance(node, ast.Import):
            modules = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, "imports are written out in full"
            modules = [f"{node.module}.{alias.name}" for alias in node.names]
        for name in modules:
            first, _, rest = name.partition(".")
            package = rest.partition(".")[0]
            if first == "potstill" and package in LEVEL:
                yield node.lineno, ast.unparse(node), package


def test_imports_go_one_way() -> None:
    wrong = []
    for file in sorted(ROOT.rglob("*.py")):
        path = file.relative_to(ROOT)
        own = path.parts[0].removesuffix(".py")
        if own.startswith("__"):  # the package's own, above all
            continue
        assert own in LEVEL, f"{path}: where does {own} stand in ORDER?"
        for line, text, package in imported(ast.parse(file.read_text())):
            below = LEVEL[package] < LEVEL[own] or package == own
            if not (below or LEVEL[package] == LEVEL[own] == 0):
                wrong.append(f"{path}:{line}: {text}")
    assert not wrong, "\n".join(wrong)


def test_no_module_is_long() -> None:
    lines = {file: len(file.read_text().splitlines()) for file in ROOT.rglob("*.py")}
    long = {file for file, count in lines.items() if count > 300}
    assert not long - {ROOT / "data" / "minicola" / "lexicon.py"}  # a list of words
