"""Where a saved model is: in a folder, on the Hub, among the runs, or with the package."""

from pathlib import Path

from potstill.errors import UserError
from potstill.files import ADAPTER_WEIGHTS, STUDENT_WEIGHTS, read_json
from potstill.inference.hub import download_model, is_hub_name
from potstill.pretrained import COLA


def resolve_model(path: str | Path) -> Path:
    """Return the folder of a model that `path` names; one of the Hub, owner/name, is downloaded.

    Raises:
        UserError: It is a name of the Hub, and can't be downloaded.
    """
    return download_model(str(path)) if is_hub_name(path) else Path(path)


def newest_student(runs: Path = Path("runs")) -> Path | None:
    """Return the student trained last in `runs`."""
    # A base and a merged decoder have weights of the same name.
    return _newest(runs, STUDENT_WEIGHTS, "student", "labels")


def newest_adapter(runs: Path = Path("runs")) -> Path | None:
    """Return the adapter tuned last in `runs`."""
    return _newest(runs, ADAPTER_WEIGHTS)


def named_or_newest(model_path: Path | None) -> tuple[Path, str]:
    """Return the folder of `model_path`, else of the newest student, else of the newest adapter,
    else of the bundled student; and the reason.

    Raises:
        UserError: As `resolve_model`.
    """
    if model_path:
        return resolve_model(model_path), ""
    if folder := newest_student() or newest_adapter():
        return folder, "trained last"
    return COLA, "nothing is trained in runs/ yet; this one came with potstill"


def _newest(runs: Path, weights: str, *keys: str) -> Path | None:
    """Return the folder of the newest file called `weights` whose config.json has `keys`."""
    files = sorted(runs.glob(f"*/{weights}"), key=lambda file: file.stat().st_mtime, reverse=True)
    return next((file.parent for file in files if _has_keys(file.parent, keys)), None)


def _has_keys(folder: Path, keys: tuple[str, ...]) -> bool:
    try:
        config = read_json(folder / "config.json") if keys else {}
    except UserError:
        return True  # to be named as damaged, not to be passed over
    return isinstance(config, dict) and all(key in config for key in keys)
