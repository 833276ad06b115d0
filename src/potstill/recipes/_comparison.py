"""The table that compares a student with its teacher and the student trained the other way."""

import logging
from dataclasses import fields
from pathlib import Path
from typing import Any

from potstill.files import read_json
from potstill.recipes.tables import comparison_table
from potstill.settings import (
    RUN_CONTROL,
    DecisionSettings,
    PretrainSettings,
    StudentSettings,
    TrainSettings,
)

TITLES = {"distil": "DistilRNN, distilled", "rnn": "DistilRNN, no teacher"}

logger = logging.getLogger(__name__)


def report(folder: Path, plot: Path) -> None:
    """Print the scores of the student in `folder` beside those of its teacher and of the student
    trained the other way, if that was done on the same terms; then where everything is."""
    config = read_json(folder / "config.json")
    rows = {TITLES[config["command"]]: _row(folder)} | _relatives(folder, config)
    # Distilled above its baseline, whichever was trained just now, and the teacher above both.
    order = sorted(rows, key=lambda name: (name in TITLES.values(), name))
    title = f"{config['data']['name']}, SR {config['SR']}"
    comparison_table(title, {name: rows[name] for name in order})
    logger.info(f"student: {folder}\nplot: {plot}")


def _row(folder: Path) -> dict[str, Any]:
    results = read_json(folder / "results.json")
    return {"parameters": results["parameters"], "scores": results["chosen"]}


def _relatives(folder: Path, config: dict[str, Any]) -> dict[str, Any]:
    sibling_command = "rnn" if config["command"] == "distil" else "distil"
    sibling = folder.parent / f"{sibling_command}-{config['SR']}"
    rows = {}
    teacher = config.get("teacher")
    if not (sibling / "results.json").is_file():
        if sibling_command == "rnn":
            logger.info(f"no baseline to compare with; run `potstill rnn {config['SR']}`")
    else:
        sibling_config = read_json(sibling / "config.json")
        if differences := _differences(config, sibling_config):
            logger.info(f"not compared with {sibling}, which differs in {', '.join(differences)}")
        else:
            rows[TITLES[sibling_command]] = _row(sibling)
            teacher = teacher or sibling_config.get("teacher")
    if teacher:
        rows[teacher["title"]] = {k: teacher[k] for k in ("parameters", "scores")}
    return rows


def _differences(config: dict[str, Any], sibling: dict[str, Any]) -> list[str]:
    """Return the settings in which two students' runs differ, so that they can't be compared."""
    shared = [
        f.name
        for group in (StudentSettings, PretrainSettings, TrainSettings, DecisionSettings)
        for f in fields(group)
    ]
    differences = [
        key
        for key in (*shared, "holdout", "max_length")
        if key not in (*RUN_CONTROL, "init")
        and config["settings"].get(key) != sibling["settings"].get(key)
    ]
    if config.get("init", {}).get("sha256") != sibling.get("init", {}).get("sha256"):
        differences.append("init")
    if config["data"]["sha256"] != sibling["data"]["sha256"]:
        differences.append("data")
    return differences
