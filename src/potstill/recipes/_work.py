"""What `make` has in its folder: how far it is, its plan, and how much of the time is used."""

import json
import logging
import shlex
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from potstill.errors import UserError
from potstill.files import REPORT, check_writable, read_json, write_json
from potstill.recipes._budget import Plan
from potstill.recipes._scoreboard import table_lines
from potstill.recipes._speed import Rates

STATE = "make.json"
# What the names of all files and folders there begin with.
MADE = (
    *("teacher", "transfer", "student", "onnx", "plots", "data"),
    *(REPORT, "unlabelled.txt", STATE),
)
HASHED = ("data", "unlabelled")  # settings that are known by a hash

logger = logging.getLogger(__name__)


@dataclass
class Work:
    """What is made in `folder`, how far it is, and how much of the time is used."""

    folder: Path
    state: dict[str, Any]
    started: float
    seconds_before: float = field(init=False)

    def __post_init__(self) -> None:
        self.seconds_before = self.state["seconds"]

    def left(self) -> float:
        """Return the seconds that are left."""
        return 60 * float(self.state["settings"]["minutes"]) - self.elapsed()

    def elapsed(self) -> float:
        return float(self.seconds_before + time.monotonic() - self.started)

    def save(self) -> None:
        self.state["seconds"] = round(self.elapsed(), 3)
        write_json(self.folder / STATE, self.state)

    def is_done(self, step: str) -> bool:
        return bool(self.state["steps"].get(step, {}).get("done"))

    @contextmanager
    def step(self, name: str, about: str) -> Iterator[None]:
        """Do a step in this context, and write down how long it takes."""
        expected = self.state["plan"]["seconds"].get(name)
        logger.info(f"-- {about}" + (f", about {minutes_text(expected)}" if expected else ""))
        earlier = self.state["steps"].get(name, {}).get("seconds", 0.0)
        started, done = time.monotonic(), False
        try:
            yield
            done = True
        finally:
            seconds = round(earlier + time.monotonic() - started, 3)
            self.state["steps"][name] = {"seconds": seconds, "done": done}
            self.save()

    def labels_alone(self) -> str:
        """Return what is said of a student that no teacher teaches."""
        unused = ", not from `unlabelled`" if self.state["settings"]["unlabelled"] else ""
        return f"the student learns from the labels alone{unused}"

    @property
    def plan(self) -> Plan:
        return Plan(**self.state["plan"])

    @property
    def rates(self) -> Rates:
        return Rates(**self.state["rates"])

    def decide(self, plan: Plan, rates: Rates) -> None:
        """Write down a plan, and the rates that it is made by."""
        self.state |= {"plan": asdict(plan), "rates": asdict(rates)}
        self.save()


def open_work(folder: Path, settings: dict[str, Any], *, fresh: bool, started: float) -> Work:
    """Return what was begun in `folder` with the same settings, or a new beginning.

    Raises:
        UserError: `folder` holds anything else.
    """
    check_writable(folder, "`output`")
    file = folder / STATE
    if not file.is_file() and any(folder.iterdir()):
        raise UserError(
            f"`output`: {folder} is not empty and not a folder of `make`; name another folder."
        )
    settings = json.loads(json.dumps(settings))  # as they are read back: tuples become lists
    state = read_json(file) if file.is_file() else {"steps": {}}
    if state["steps"] and fresh:
        for path in (path for path in folder.iterdir() if path.name.startswith(MADE)):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    elif state["steps"]:  # before the first step, nothing is lost by other settings
        for name, value in settings.items():
            if (old := state["settings"].get(name)) == value:
                continue
            known = f"with other {name}" if name in HASHED else f"with {name} {old}, not {value}"
            raise UserError(
                f"`output`: {folder} was made {known}; repeat its settings to continue it, name "
                "another folder, or start anew with `fresh`."
            )
        verb = "is finished" if "rows" in state else "goes on"
        logger.info(f"{folder} {verb}; `fresh` would start anew")
        return Work(folder, state, started)
    work = Work(folder, {"settings": settings, "seconds": 0.0, "steps": {}}, started)
    work.save()
    return work


def minutes_text(seconds: float) -> str:
    """Write 90 as 1.5 min."""
    return f"{seconds / 60:.1f} min"


def log_plan(work: Work, train: int) -> None:
    """Log what is planned, and how long it is expected to take."""
    plan, rates = work.plan, work.rates
    total = sum(plan.seconds.values()) + work.elapsed()
    asked = 60 * float(work.state["settings"]["minutes"])
    student = rates.student if plan.teacher_epochs else rates.student_alone
    logger.info(
        f"this machine: {rates.tuning:,.0f} sentences/s tuned, {rates.labelling:,.0f} labelled, "
        f"{student:,.0f} by the student"
    )
    what = {
        "teacher": f"{passes(plan.teacher_epochs)} over {plan.train:,} sentences",
        "transfer": f"{plan.user:,} sentences of yours, {plan.sampled:,} sampled, "
        f"{plan.edited:,} edited",
        "student": f"{passes(plan.student_epochs)} over {plan.train + plan.transfer:,} sentences",
        "finish": "export, scores and report",
    }
    if not plan.teacher_epochs:
        logger.info(f"the time is too short to tune a teacher: {work.labels_alone()}")
    for step, seconds in plan.seconds.items():
        logger.info(f"  {step:<9} {minutes_text(seconds):>9}   {what[step]}")
    logger.info(f"  in all    {minutes_text(total):>9}   of {minutes_text(asked)}")
    if plan.train < train:
        logger.info(
            f"the time is too short for all {train:,} training sentences: {plan.train:,} are used"
        )
    if total > asked:
        logger.warning("warning: this takes longer than `minutes`, even with the least of all")


def log_end(work: Work) -> None:
    """Log the table, and what to do next."""
    folder, rows = work.folder, work.state["rows"]
    logger.info("")
    for line in table_lines(rows):
        logger.info(line)
    simpler = [row for row in rows[:-1] if not row["model"].startswith("teacher")]
    better = [row["model"] for row in simpler if row["mcc"] > rows[-1]["mcc"]]
    if better:
        logger.info(f"{better[-1]} has a higher MCC here than the student")
    minutes = work.state["seconds"] / 60
    logger.info(f"{minutes:.1f} minutes of {work.state['settings']['minutes']:g}")
    logger.info(f"report: {folder / REPORT}")
    example = shlex.quote(str(folder / "onnx"))
    logger.info(f'next: potstill predict --model_path {example} "A text of yours."')


def passes(epochs: int) -> str:
    return "1 epoch" if epochs == 1 else f"{epochs} epochs"
