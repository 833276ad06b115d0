"""The command report: the folders of runs in, one HTML file out."""

import logging
from pathlib import Path

from potstill.errors import UserError
from potstill.files import REPORT, check_writable, write_text
from potstill.report.page import report_html
from potstill.report.run import read_run
from potstill.report.words import explainer

logger = logging.getLogger(__name__)


def report(folders: list[Path], output: Path | None) -> None:
    """Write one HTML file about runs; see `commands.report`."""
    if len({folder.resolve() for folder in folders}) < len(folders):
        raise UserError("name each run once.")
    runs = [read_run(folder) for folder in folders]
    file = output or (folders[0] / REPORT if len(folders) == 1 else Path(REPORT))
    if file.is_dir():
        file = file / REPORT
    check_writable(file.parent, "`output`")
    write_text(file, report_html(runs, [explainer(folder) for folder in folders]))
    logger.info(f"report: {file}")


def write_own_report(folder: Path, *, explained: bool) -> None:
    """Write the report of a run that has just ended into its folder.

    Args:
        folder: Folder of the run.
        explained: Whether to load the model again, to colour words by what it makes of them.
    """
    explain = explainer(folder) if explained else None
    write_text(folder / REPORT, report_html([read_run(folder)], [explain]))
