"""Reading an artefact: its files against its manifest, which `files` writes."""

from collections.abc import Collection
from pathlib import Path

from potstill.errors import UserError
from potstill.files import MANIFEST, sha256_of
from potstill.parsing import parse_json


def check_manifest(folder: Path, names: Collection[str] | None = None) -> None:
    """Check files of `folder` against its manifest, as in `find_damage`.

    Raises:
        UserError: One is missing, cut short or changed.
    """
    if damage := find_damage(folder, names):
        raise UserError(
            f"{folder}: {damage}; restore it or make the folder again (where it was changed on "
            f"purpose, remove {MANIFEST})."
        )


def find_damage(folder: Path, names: Collection[str] | None = None) -> str:
    """Return which file of `folder` is not as its manifest says, and why; else "".

    A folder without a manifest, of an earlier version or of another program, has no damage.

    Args:
        names: The files to check, as far as the manifest lists them. Default: all that it lists.
    """
    if not (folder / MANIFEST).is_file():
        return ""
    try:
        files = parse_json((folder / MANIFEST).read_bytes())["files"]
        expected = {k: (int(v["bytes"]), str(v["sha256"])) for k, v in files.items()}
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError, OSError):
        return f"{MANIFEST} is damaged"
    for name in expected if names is None else expected.keys() & set(names):
        size, sha256 = expected[name]
        file = folder / name
        if Path(name).is_absolute() or ".." in Path(name).parts:
            return f"{MANIFEST} names {name!r}, which is not in the folder"
        try:
            if not file.is_file():
                return f"{name} is missing"
            if file.stat().st_size != size:
                return f"{name} is damaged: it has {file.stat().st_size} bytes, not {size}"
            if sha256_of(file) != sha256:
                return f"{name} is damaged: it is not what was written"
        except OSError as error:  # no permission; a name that is too long for any file
            return f"{name[:100]!r}, which {MANIFEST} names, can't be read ({error.strerror})"
    return ""
