"""Writers that are killed, disks that are full, folders that can't be written, two writers at once.

Where the system doesn't let a test mount a file system, or has no C compiler, it is skipped.
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from potstill.errors import UserError
from potstill.files import (
    atomic_folder,
    cache_folder,
    check_writable,
    write_bytes,
    write_json,
    write_manifest,
)
from potstill.locks import check_free, exclusive
from potstill.manifest import check_manifest, find_damage

ROOT = Path(__file__).parents[1]


def gone_pid() -> int:
    """Return the number of a process that has ended."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def test_writers_killed_between_any_two_calls_leave_whole_artefacts(tmp_path: Path) -> None:
    """A student, a run's state, an export into its own folder, and a single file."""
    compiler = shutil.which(os.environ.get("CC", "cc"))
    if sys.platform != "linux" or not compiler:
        pytest.skip("needs Linux and a C compiler")
    library = tmp_path / "count_calls.so"
    source = ROOT / "tests/faults/count_calls.c"
    subprocess.run([compiler, "-shared", "-fPIC", "-o", library, source, "-ldl"], check=True)
    env = os.environ | {"LD_PRELOAD": str(library), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "tests.faults.cut_writers", str(tmp_path / "work")]
    result = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=300)
    assert result.returncode == 0, result.stderr
    killed = json.loads(result.stdout.splitlines()[-1])
    assert killed.keys() == {"student", "state", "export", "file"}
    assert killed["student"] >= 20 and killed["state"] >= 15
    assert killed["export"] >= 15 and killed["file"] >= 4


def test_what_killed_writers_left_is_removed_or_restored(tmp_path: Path) -> None:
    pid = gone_pid()
    (tmp_path / f".run.{pid}.new").mkdir()
    (tmp_path / f".file.{pid}.new").touch()
    (tmp_path / f".run.{os.getppid()}.new").mkdir()  # of a process that lives
    (tmp_path / f".run.unfinished.{pid}.new").mkdir()  # of another name
    with atomic_folder(tmp_path / "run") as staging:
        (staging / "a").write_text("a")
    write_bytes(tmp_path / "file", b"a")
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {
        "run",
        "file",
        f".run.{os.getppid()}.new",
        f".run.unfinished.{pid}.new",
    }
    # Killed between two renames, where the system can't exchange folders.
    (tmp_path / "run").rename(tmp_path / f".run.{pid}.old")
    with pytest.raises(ValueError), atomic_folder(tmp_path / "run"):
        raise ValueError
    assert (tmp_path / "run/a").read_text() == "a"


def test_folders_are_replaced_where_they_can_not_be_exchanged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("potstill.files._exchange", lambda first, second: False)
    for text in ("a", "b"):
        with atomic_folder(tmp_path / "run") as staging:
            (staging / "a").write_text(text)
    assert (tmp_path / "run/a").read_text() == "b"
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


@pytest.mark.parametrize(
    ("harm", "words"),
    [
        (lambda f: f.write_bytes(f.read_bytes()[:-1]), "a is damaged: it has 2 bytes, not 3"),
        (lambda f: f.write_bytes(b""), "a is damaged: it has 0 bytes, not 3"),
        (lambda f: f.write_bytes(b"abd"), "a is damaged: it is not what was written"),
        (lambda f: f.unlink(), "a is missing"),
    ],
    ids=["cut", "empty", "edited", "missing"],
)
def test_a_damaged_file_is_named(tmp_path: Path, harm, words: str) -> None:
    with atomic_folder(tmp_path / "run") as staging:
        (staging / "a").write_bytes(b"abc")
        (staging / "b").write_bytes(b"abc")
    check_manifest(tmp_path / "run")
    harm(tmp_path / "run/a")
    assert find_damage(tmp_path / "run") == words
    assert find_damage(tmp_path / "run", ["b", "c"]) == ""
    with pytest.raises(UserError, match=f"run: {words}; restore it or make the folder again"):
        check_manifest(tmp_path / "run", ["a"])


@pytest.mark.parametrize("body", ["", "[]", "{}", '{"files": {"a": 3}}', '{"files": {"a": {}}}'])
def test_a_damaged_manifest_is_named(tmp_path: Path, body: str) -> None:
    (tmp_path / "manifest.json").write_text(body)
    assert find_damage(tmp_path) == "manifest.json is damaged"


def test_a_folder_without_a_manifest_passes(tmp_path: Path) -> None:
    check_manifest(tmp_path)
    (tmp_path / "a").touch()
    write_manifest(tmp_path)
    (tmp_path / "a").write_text("more")
    assert find_damage(tmp_path)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_no_json_file_has_a_number_that_is_not_finite(tmp_path: Path, value: float) -> None:
    write_json(tmp_path / "a.json", {"a": 1})
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "a.json", {"a": [value]})
    assert json.loads((tmp_path / "a.json").read_text()) == {"a": 1}


def test_one_process_writes_a_folder_at_a_time(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    with exclusive(folder, "`output`"):
        for claim in (check_free, lambda *args: exclusive(*args).__enter__()):
            with pytest.raises(UserError) as error:
                claim(folder, "`output`")
            assert str(error.value) == (
                f"`output`: process {os.getpid()} is writing {folder} now; wait until it has "
                "ended, or name another folder."
            )
    check_free(folder, "`output`")
    assert not list(tmp_path.iterdir())


def test_a_killed_process_locks_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    script = f"""
from pathlib import Path
import os, signal
from potstill.locks import exclusive
with exclusive(Path({str(folder)!r}), "output"):
    os.kill(os.getpid(), signal.SIGKILL)
"""
    subprocess.run([sys.executable, "-c", script], check=False)
    assert (tmp_path / ".run.lock").exists()
    check_free(folder, "`output`")
    with exclusive(folder, "`output`"):
        pass
    assert not list(tmp_path.iterdir())


def in_own_mounts(script: str, **env: str) -> subprocess.CompletedProcess[str]:
    """Run a shell script that may mount file systems, which nobody else sees."""
    if not shutil.which("unshare"):
        pytest.skip("needs unshare")
    probe = ["unshare", "-rm", "sh", "-c", "mount -t tmpfs none /mnt"]
    if subprocess.run(probe, capture_output=True).returncode:
        pytest.skip("may not mount a file system")
    return subprocess.run(
        ["unshare", "-rm", "sh", "-c", script],
        env=os.environ | env,
        capture_output=True,
        text=True,
        timeout=300,
    )


FILL = """
mount -t tmpfs -o size=64k none "$DISK" && cd "$DISK"
"$PYTHON" - <<'END'
from pathlib import Path
from potstill.files import atomic_folder, write_bytes
def save(version, size):
    with atomic_folder(Path("run")) as staging:
        for i in range(4):
            write_bytes(staging / f"{i}", version * size)
save(b"a", 2000)
write_bytes(Path("file"), b"a" * 2000)
for size in range(3000, 40000, 3000):
    for write in (lambda: save(b"b", size), lambda: write_bytes(Path("file"), b"b" * 9 * size)):
        try:
            write()
        except OSError as error:
            assert error.errno == 28, error
            print("full")
    bodies = {path.read_bytes()[:1] for path in Path("run").glob("?")}
    assert len(bodies) == 1 and sorted(p.name for p in Path().iterdir()) == ["file", "run"], bodies
END
"""


def test_a_full_disk_leaves_what_was_there(tmp_path: Path) -> None:
    """A tmpfs of 64 kB."""
    result = in_own_mounts(FILL, DISK=str(tmp_path), PYTHON=sys.executable)
    assert result.returncode == 0, result.stderr
    assert result.stdout.count("full") >= 10


def test_a_read_only_folder_is_refused_before_work_begins(tmp_path: Path) -> None:
    script = """
mount -t tmpfs none "$DISK" && mount -o remount,ro "$DISK"
exec "$PYTHON" -c '
from pathlib import Path
import os
from potstill.files import check_writable
check_writable(Path(os.environ["DISK"]), "`output`")
'
"""
    result = in_own_mounts(script, DISK=str(tmp_path), PYTHON=sys.executable)
    assert f"`output`: {tmp_path} can't be written (Read-only file system)" in result.stderr


def test_checking_a_folder_leaves_nothing_there(tmp_path: Path) -> None:
    check_writable(tmp_path / "a/b", "`output`")
    assert not list((tmp_path / "a/b").iterdir())


def test_a_user_without_a_home_folder_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_home() -> Path:
        raise RuntimeError("Could not determine home directory.")

    for name in ("POTSTILL_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(Path, "home", no_home)
    with pytest.raises(UserError, match="no home folder; name a folder by POTSTILL_CACHE"):
        cache_folder()
