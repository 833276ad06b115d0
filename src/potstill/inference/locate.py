"""The saved model that a command takes when none is named."""

from pathlib import Path

from potstill.files import ADAPTER_WEIGHTS, STUDENT_WEIGHTS

PRETRAINED = Path(__file__).parent / "pretrained"  # the bundled student, exported


def newest_run(runs: Path = Path("runs")) -> Path | None:
    """Return the student trained last in `runs`, else the adapter tuned last, else None."""
    for name in (STUDENT_WEIGHTS, ADAPTER_WEIGHTS):
        weights = sorted(runs.glob(f"*/{name}"), key=lambda file: file.stat().st_mtime)
        if weights:
            return weights[-1].parent
    return None


def named_or_newest(model_path: Path | None) -> tuple[Path, str]:
    """Return `model_path`, else the newest run, else the bundled student; and the reason."""
    if model_path:
        return model_path, ""
    if folder := newest_run():
        return folder, "trained last"
    return PRETRAINED, "nothing is trained in runs/ yet; this one came with potstill"
