"""The names that `import potstill` offers."""

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import potstill

HEAVY = ("numpy", "torch", "onnxruntime", "tokenizers", "transformers", "sklearn", "rich", "tyro")
BLOCK = """
import sys
class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("torch", "safetensors"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Blocked())
"""


def run_python(script: str) -> str:
    """Run `script` in a fresh interpreter; return what it prints."""
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    return result.stdout.strip()


def test_import_loads_nothing_heavy() -> None:
    script = f"import sys, potstill; print([m for m in {HEAVY} if m in sys.modules])"
    assert run_python(script) == "[]"


def test_every_public_name_resolves() -> None:
    assert sorted(potstill.__all__) == sorted(set(potstill.__all__))
    for name in potstill.__all__:
        assert getattr(potstill, name) is not None
        assert name in dir(potstill)
    assert {*potstill._MODULES} < {*potstill.__all__}


def test_every_public_class_and_function_is_documented() -> None:
    for name in potstill.__all__:
        value = getattr(potstill, name)
        if name != "__version__":
            assert value.__doc__ and not value.__doc__.startswith(f"{name}("), name


def test_star_import_is_what_all_says() -> None:
    namespace: dict[str, object] = {}
    exec("from potstill import *", namespace)
    assert {*namespace} - {"__builtins__"} == {*potstill.__all__}


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'potstill' has no attribute 'distill'"):
        potstill.distill  # noqa: B018


def test_a_missing_extra_is_named_in_one_sentence() -> None:
    script = f"{BLOCK}\nimport potstill\ntry: potstill.DistilRNN\nexcept ImportError as e: print(e)"
    assert run_python(script) == "torch is not installed; pip install 'potstill[train]' brings it."


def test_the_bundled_student_needs_no_torch() -> None:
    script = f"{BLOCK}\nimport potstill; print(potstill.load().predict('The cat are old.'))"
    assert run_python(script) in ("acceptable", "unacceptable")


def test_version_is_that_of_the_package() -> None:
    pyproject = Path(__file__).parents[1] / "pyproject.toml"
    assert tomllib.loads(pyproject.read_text())["project"]["version"] == potstill.__version__
