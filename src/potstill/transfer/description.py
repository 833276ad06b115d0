"""The description of a transfer set: checked against the set that is there, and written."""

from pathlib import Path
from typing import Any

from potstill.errors import UserError
from potstill.files import read_json, write_json
from potstill.training.distributed import process
from potstill.transfer.shards import DESCRIPTION, SHARD_SIZE

# The settings that a set's description calls otherwise.
FIELDS = {
    "temperature": "`temperature`",
    "lm_epochs": "`sampler_epochs`",
    "own": "`unlabelled`",
    "sentences_of": "`relabel`",
}


def write_description(folder: Path, description: dict[str, Any]) -> None:
    """Write the description of a set, once it is sure that the folder holds no other set.

    Raises:
        UserError: It holds one that was made with other settings, by another teacher or of other
            data.
    """
    present = read_json(folder / DESCRIPTION) if (folder / DESCRIPTION).is_file() else description
    for key in {**description, "shard_size": SHARD_SIZE}:
        default = SHARD_SIZE if key == "shard_size" else None
        old, new = present.get(key, default), description.get(key, default)
        if key == "teacher":  # the same one may have moved
            old, new = ((value or {}).get("sha256") for value in (old, new))
        if key != "sentences" and old != new:  # a set may grow
            raise UserError(
                f"the transfer set in {folder} was made with another {FIELDS.get(key, key)} "
                f"({_short(old)}, not {_short(new)}); repeat its settings, or name another "
                "`transfer_path`."
            )
    process().wait_for_everyone()
    if process().is_main_process:
        write_json(folder / DESCRIPTION, description)


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 40 else f"{text[:12]}…"
