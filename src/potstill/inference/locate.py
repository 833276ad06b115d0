"""The saved model that a command takes when none is named."""

from pathlib import Path

from potstill.files import ADAPTER_WEIGHTS, STUDENT_WEIGHTS

BOX = Path(__file__).parent / "pretrained"  # an exported student that comes with the package


def newest_run(runs: Path = Path("runs")) -> Path | None:
    """The student trained last in `runs`, else the adapter tuned last, else none."""
    for weights in (STUDENT_WEIGHTS, ADAPTER_WEIGHTS):
        found = sorted(runs.glob(f"*/{weights}"), key=lambda file: file.stat().st_mtime)
        if found:
            return found[-1].parent
    return None


def named_or_newest(model_path: Path | None) -> tuple[Path, str]:
    """`model_path`, else the run trained last, else the student in the box; and why."""
    if model_path:
        return model_path, ""
    if folder := newest_run():
        return folder, "trained last"
    return BOX, "nothing is trained in runs/ yet; this one came with potstill"
