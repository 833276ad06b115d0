"""The commands that make a run again."""

import shlex
from dataclasses import fields
from typing import Any

from potstill.settings import (
    DataSettings,
    DecisionSettings,
    DistilSettings,
    LoRASettings,
    PretrainSettings,
    StudentSettings,
    TrainSettings,
)

STUDENT = (
    StudentSettings(),
    PretrainSettings(),
    DataSettings(),
    TrainSettings(),
    DecisionSettings(),
)
# The settings of each command, as they are by default.
DEFAULTS: dict[str, tuple[Any, ...]] = {
    "LoRA": (LoRASettings(), DataSettings(), TrainSettings(), DecisionSettings()),
    "distil": (DistilSettings(), *STUDENT),
    "rnn": STUDENT,
}
LEFT_OUT = ("data", "resume")  # said otherwise, or of no effect on the outcome


def changed_settings(config: dict[str, Any]) -> dict[str, Any]:
    """Return the settings of a run that are not the defaults of its command."""
    defaults = {
        field.name: getattr(group, field.name)
        for group in DEFAULTS.get(config["command"], ())
        for field in fields(group)
    }
    settings = config["settings"]
    return {k: v for k, v in settings.items() if k in defaults and v != defaults[k]}


def reproduction(config: dict[str, Any]) -> str:
    """Return the command that makes the run again, from the settings that it recorded."""
    words = ["potstill", config["command"]]
    if config["command"] == "average":
        words += [adapter["path"] for adapter in config.get("adapters", [])]
        return shlex.join(words)
    words.append(str(config["SR"]))
    if "decoder" in config:
        words += ["--gpt_variant", config["decoder"]["variant"]]
    if "teacher" in config:
        words += ["--teacher", config["teacher"]["path"]]
    if "transfer_set" in config:
        words += ["--transfer_set", config["transfer_set"]["path"]]
    data = config["data"]
    words += ["--data", "minicola" if data["name"] == "MiniCoLA" else data["path"]]
    for name, value in changed_settings(config).items():
        if name in LEFT_OUT or value is None:
            continue
        if isinstance(value, bool):
            words.append(f"--{name}" if value else f"--no_{name}")
        else:
            words += [f"--{name}", str(value)]
    return shlex.join(words)
