"""Which columns of a table are the text, the label and the group, and the rows that they make."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from potstill.data.labels import as_label, as_text
from potstill.errors import UserError

# Columns that are read by default, the first of them that a file has.
DEFAULT_COLUMNS = {"text_column": ("sentence", "text"), "label_column": ("label", "labels")}
# Stands between the texts of a row with several.
PAIR_SEPARATOR = " ||| "


@dataclass(frozen=True)
class Row:
    """One labelled sentence as it is in a file.

    Args:
        line: Number of its line; where there are no lines, of its row.
        text: The sentence.
        label: The name of its class.
        source: The first column of CoLA's format; empty in other formats.
        group: What rows that belong together have in common; empty without a column for it.
        fault: Why the row can't be used, else empty.
    """

    line: int
    text: str
    label: str
    source: str = ""
    group: str = ""
    fault: str = ""


@dataclass(frozen=True)
class Columns:
    """The names of the columns to read; what is empty has a default.

    Args:
        text: Of the text, or of several texts, which are joined.
        label: Of the label.
        group: Of what rows that belong together have in common.
    """

    text: tuple[str, ...] = ()
    label: str = ""
    group: str = ""

    @classmethod
    def of(
        cls,
        text_column: str | Sequence[str] | None,
        label_column: str | None,
        group_column: str | None = None,
    ) -> "Columns":
        if isinstance(text_column, str):
            text_column = (text_column,)
        return cls(tuple(text_column or ()), label_column or "", group_column or "")

    def locate(self, where: str, names: Sequence[str]) -> "Located":
        """Return where the columns are among those called `names`.

        Args:
            where: What errors call the table.

        Raises:
            UserError: One is missing.
        """
        text = self.locate_text(where, names)
        label = _index(
            where,
            names,
            "label_column",
            (self.label,) if self.label else DEFAULT_COLUMNS["label_column"],
            named=bool(self.label),
        )
        group = None
        if self.group:
            group = _index(where, names, "group_column", (self.group,), named=True)
        return Located(text, label, group, tuple(names))

    def locate_text(self, where: str, names: Sequence[str]) -> tuple[int, ...]:
        """Return where the columns of the text are; the arguments and errors are as of `locate`."""
        if not self.text:
            return (_index(where, names, "text_column", DEFAULT_COLUMNS["text_column"]),)
        return tuple(_index(where, names, "text_column", (name,), named=True) for name in self.text)

    def matches(self, names: Sequence[str]) -> int:
        """Return how many of the columns are among those called `names`."""
        wanted: list[tuple[str, ...]] = [(name,) for name in self.text]
        wanted = wanted or [DEFAULT_COLUMNS["text_column"]]
        wanted += [(self.label,) if self.label else DEFAULT_COLUMNS["label_column"]]
        known = {_plain(name) for name in names}
        return sum(any(_plain(name) in known for name in choice) for choice in wanted)


@dataclass(frozen=True)
class Located:
    """The indices of the columns in a table whose columns are called `names`."""

    text: tuple[int, ...]
    label: int
    group: int | None
    names: tuple[str, ...]

    def note(self) -> str:
        """Return which columns are read, if there are others, else ""."""
        read = {*self.text, self.label, self.group}
        unread = [name for i, name in enumerate(self.names) if i not in read and name.strip()]
        if not unread:
            return ""
        text = " and ".join(repr(self.names[i]) for i in self.text)
        line = f"text from {text}, label from {self.names[self.label]!r}; not read: "
        return line + ", ".join(unread[:8]) + (", …" if len(unread) > 8 else "")

    def row(self, line: int, values: Sequence[Any]) -> Row:
        """Return a record of the table as a row."""
        texts = [as_text(values[i]) for i in self.text]
        label, fault = as_label(values[self.label])
        group = "" if self.group is None else str(values[self.group]).strip()
        faults = [fault for _, fault in texts if fault] + [fault]
        return Row(
            line, PAIR_SEPARATOR.join(text for text, _ in texts), label, "", group, faults[0]
        )


def joined_text(where: str, values: Sequence[Any], columns: Sequence[int]) -> str:
    """Return the text of a record without a label, "" for a blank one.

    Raises:
        UserError: It is not text.
    """
    texts = []
    for i in columns:
        text, fault = as_text(values[i])
        if text and fault:
            raise UserError(f"{where}: {fault}.")
        texts.append(text)
    return PAIR_SEPARATOR.join(texts) if any(texts) else ""


def table_rows(located: Located, records: Iterable[tuple[int, Sequence[Any]]]) -> Iterator[Row]:
    """Yield the records of a table, each with its line, as rows."""
    for line, values in records:
        yield located.row(line, values)


def _index(
    where: str,
    names: Sequence[str],
    setting: str,
    candidates: Sequence[str],
    *,
    named: bool = False,
) -> int:
    """Return the index in `names` of the first of the candidates that is there.

    A name that differs in case or in blanks around it serves where there is none that does not.
    """
    for form in (str, _plain):
        known = [form(name) for name in names]
        for candidate in candidates:
            if form(candidate) in known:
                return known.index(form(candidate))
    columns = ", ".join(" ".join(name.split()) for name in names)  # on one line
    if named:
        raise UserError(f"{where} has no column {candidates[0]!r} (`{setting}`); it has {columns}.")
    several = ""
    if setting == "label_column":
        several = " A row has one label; of a column for each label, name one."
    elif sum(_plain(name).rstrip("12") in ("sentence", "text", "question") for name in names) > 1:
        several = " Of a pair of texts name both."
    raise UserError(f"{where} needs `{setting}`: one of its columns {columns}.{several}")


def _plain(name: str) -> str:
    return name.strip().removeprefix("\ufeff").casefold()
