"""An unfinished run: where its state is, who works on it, and what is said when it ends early."""

import logging
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from potstill.errors import UserError
from potstill.files import MANIFEST, cache_folder, check_replaceable, check_writable
from potstill.locks import check_free, exclusive
from potstill.settings import TrainSettings
from potstill.training.checkpoint import Checkpoint
from potstill.training.distributed import process
from potstill.training.finite import DivergedError

SHOWN = 3  # sentences of a batch

logger = logging.getLogger(__name__)


def unfinished(folder: Path) -> Path:
    """Return where the state of a run that will write `folder` is."""
    return folder.with_name(f"{folder.name}.unfinished")


def check_target(folder: Path, plots_path: Path | None, train: TrainSettings) -> None:
    """Raise UserError unless a run can write its results, replaces nothing but a run, is alone,
    and finds what it is to resume.

    This is checked before training, not after.
    """
    state = unfinished(folder)
    if train.resume and not any(state.glob("*.json")):
        raise UserError(f"`resume`: no interrupted run in {state}; run without it.")
    check_replaceable(folder, "`output`")
    check_writable(folder.parent, "`output`")
    if plots_path:
        check_writable(plots_path, "`plots_path`")
    check_writable(cache_folder(), "POTSTILL_CACHE")
    if process().is_main_process:
        check_free(folder, "`output`")
    if not train.resume and not train.fresh and (state / MANIFEST).is_file():
        logger.info(f"an unfinished run is in {state}; `fresh` would start anew")


@contextmanager
def alone_in(folder: Path, train: TrainSettings) -> Iterator[None]:
    """Be the only run that writes `folder` while the context lasts; say after an interruption how
    to continue.

    Raises:
        UserError: Another run writes it.
    """
    state = unfinished(folder)
    try:
        if not process().is_main_process:
            process().wait_for_everyone()
            yield
            return
        with exclusive(folder, "`output`"):
            if train.fresh:
                shutil.rmtree(state, ignore_errors=True)
            process().wait_for_everyone()
            yield
    except KeyboardInterrupt:
        if any(state.glob("*.json")):
            logger.info(f"the state is saved in {state}; the same command goes on from there")
        raise


@contextmanager
def alone_in_set(folder: Path) -> Iterator[None]:
    """Be the only command that writes the transfer set in `folder`; its processes share the work.

    Raises:
        UserError: Another command writes it.
    """
    try:
        if process().is_main_process:
            with exclusive(folder, "`transfer_path`"):
                yield
        else:
            yield
    except KeyboardInterrupt:
        logger.info(f"what is finished is in {folder}; the same command goes on from there")
        raise


@contextmanager
def saving_state(
    checkpoint: Checkpoint,
    name: str = "`lr`",
    sentences: Callable[[Sequence[int]], Sequence[str]] = lambda indices: (),
) -> Iterator[None]:
    """Train in this context: an interruption waits for the end of a step and saves the state first,
    and where the loss is not finite, the error says what to do.

    Args:
        name: What the message calls the setting to lower.
        sentences: Maps indices in the dataset to sentences, as far as they are known.

    Raises:
        UserError: The loss is not finite.
    """
    try:
        with checkpoint.interruption:
            yield
    except DivergedError as error:
        where = f"epoch {error.epoch}" + (f", step {error.step}" if error.step else "")
        rate = f", at a learning rate of {error.lr:.3g}" if error.lr is not None else ""
        texts = [repr(text[:60]) for text in sentences(error.indices)]
        batch = ""
        if texts:
            more = f" and {len(texts) - SHOWN} more" * (len(texts) > SHOWN)
            batch = f", with the sentences {', '.join(texts[:SHOWN])}{more}"
        kept = f"the state before is in {checkpoint.folder}; " * checkpoint.exists()
        again = " and add `fresh`" * checkpoint.exists()
        raise UserError(
            f"the loss or its gradient is not finite in {where}{rate}{batch}; no model is written, "
            f"{kept}lower {name}{again}."
        ) from error
