"""Labelled sentences in columns: Parquet, pandas, `datasets`, and two lists."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from potstill.data.columns import Columns, Located, table_rows
from potstill.data.download import in_time
from potstill.data.hub import SILENCE, TIME_LIMIT, hub_reachable
from potstill.data.readers import Table
from potstill.errors import UserError, missing_extra
from potstill.parsing import reason

HUB_NAME = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")
IN_MEMORY = "data in memory"


def read_parquet(file: Path, columns: Columns) -> Table:
    """Read a Parquet file.

    Raises:
        UserError: It can't be read, or has not the columns.
    """
    try:
        from pyarrow import ArrowException, parquet
    except ModuleNotFoundError as error:
        raise missing_extra(error) from None
    try:
        names = parquet.read_schema(file).names
        located = columns.locate(str(file), names)
        read = [i for i in (*located.text, located.label, located.group) if i is not None]
        table = parquet.read_table(file, columns=[names[i] for i in read])
        values = {i: table.column(names[i]).to_pylist() for i in read}
    except (OSError, KeyError, ValueError, ArrowException) as error:
        raise UserError(f"{file} can't be read: {reason(error)}.") from error
    return _table(str(file), located, values)


def read_columns(data: Any, columns: Columns, name: str = IN_MEMORY) -> Table:
    """Read a table in memory: a DataFrame, a `datasets.Dataset`, or a pair (texts, labels).

    Raises:
        UserError: It is none of these, or has not the columns.
    """
    if isinstance(data, tuple | list) and len(data) == 2:
        texts, labels = map(list, data)
        if len(texts) != len(labels):
            raise UserError(f"{name}: {len(texts)} texts, but {len(labels)} labels.")
        return _table(name, Located((0,), 1, None, ("text", "label")), {0: texts, 1: labels})
    names = getattr(data, "column_names", None) or getattr(data, "columns", None)
    if names is None or not hasattr(data, "__getitem__"):
        raise UserError(
            f"{name}: {type(data).__name__} is not labelled data; give a file, a folder, a "
            "DataFrame, a pair (texts, labels), or a dict of these by split."
        )
    names = list(names)
    located = columns.locate(name, list(map(str, names)))
    read = [i for i in (*located.text, located.label, located.group) if i is not None]
    values = {i: list(data[names[i]]) for i in read}
    feature = (getattr(data, "features", None) or {}).get(names[located.label])
    # The rows of a `datasets.Dataset` have the numbers of its classes.
    if feature is not None and hasattr(feature, "int2str"):
        values[located.label] = [
            None if number is None or number < 0 else feature.int2str(number)
            for number in values[located.label]
        ]
    return _table(name, located, values)


def is_saved_dataset(folder: Path) -> bool:
    """Return whether a folder was saved by `datasets`."""
    return (folder / "dataset_dict.json").is_file() or (
        (folder / "state.json").is_file() and (folder / "dataset_info.json").is_file()
    )


def load_saved_dataset(folder: Path) -> Any:
    """Return what `datasets` saved in a folder.

    Raises:
        UserError: It is damaged.
    """
    try:
        from datasets import load_from_disk
    except ModuleNotFoundError as error:
        raise missing_extra(error) from None
    try:
        return load_from_disk(str(folder))
    except Exception as error:  # pyarrow, json and datasets raise their own kinds
        raise UserError(f"{folder} can't be read: {reason(error)}.") from error


def load_hub_dataset(name: str) -> Any:
    """Return a data set of the Hugging Face Hub, by split.

    Raises:
        UserError: There is none of this name, or the Hub can't be reached.
    """
    missing = f"`data` {name}: there is no such file or folder"
    if not hub_reachable():
        raise UserError(f"{missing}, and the Hugging Face Hub can't be reached.")
    try:
        from datasets import load_dataset
        from huggingface_hub import dataset_info
    except ModuleNotFoundError as error:
        raise missing_extra(error) from None
    try:
        # Asked for by itself, as the library asks again and again where no answer comes.
        in_time(lambda: dataset_info(name, timeout=SILENCE), 2 * SILENCE)
        return in_time(lambda: load_dataset(name), TIME_LIMIT)
    except Exception as error:  # the Hub's, requests' and datasets' own kinds
        raise UserError(
            f"{missing}, and as a data set of the Hugging Face Hub it can't be read: "
            f"{reason(error)}."
        ) from error


def _table(name: str, located: Located, values: Mapping[int, Sequence[Any]]) -> Table:
    """Return the rows of a table, given the values of the columns that are read."""
    packed = Located(
        tuple(range(len(located.text))),
        len(located.text),
        None if located.group is None else len(located.text) + 1,
        located.names,
    )
    order = [*located.text, located.label]
    order += [] if located.group is None else [located.group]
    records = enumerate(zip(*(values[i] for i in order), strict=True), 1)
    rows = list(table_rows(packed, records))
    return Table(name, rows, tuple(filter(None, [located.note()])))
