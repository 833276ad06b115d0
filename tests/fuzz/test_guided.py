"""The readers under atheris, a fuzzer that is guided by the code that its cases reach."""

import importlib.util
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from tests.fuzz.mutation import CASES
from tests.fuzz.readers import cases_of, make_readers

NAMES = list(make_readers(Path(), Path()))
ROOT = Path(__file__).parents[2]
GROWTH = 1024  # MB that a case may take; more than the process has with all libraries in it


@pytest.mark.slow
@pytest.mark.skipif(
    importlib.util.find_spec("atheris") is None, reason="`pip install atheris` has not been run"
)
@pytest.mark.parametrize(("name", "cases"), cases_of(NAMES, CASES).items())
def test_nothing_is_found(name: str, cases: int, tiny_gpt2: Path, tmp_path: Path) -> None:
    own = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    flags = [f"-runs={cases}", f"-rss_limit_mb={own + GROWTH}", "-verbosity=0"]
    command = [sys.executable, "-m", "tests.fuzz.guided", name, str(tmp_path), str(tiny_gpt2)]
    process = subprocess.run([*command, *flags], cwd=ROOT, capture_output=True, text=True)
    found = [
        path.name for path in tmp_path.iterdir() if path.name[:5] in ("crash", "timeo", "oom-")
    ]
    assert process.returncode == 0 and not found, (found, process.stderr[-3000:])
