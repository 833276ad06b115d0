"""Downloads from the Hugging Face Hub, with limits on how long it may be silent."""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from potstill.data import download

TIME_LIMIT = 600.0  # seconds, of all files of a model for prediction together
# Of these seconds nothing may come. One that answers half of what it is asked costs 20 s at most.
SILENCE = 10.0
CHUNK = 1 << 18  # bytes; the library's 10 MB are minutes of silence on a slow line


def hub_reachable() -> bool:
    """Return whether the Hub answers, and may be asked."""
    from huggingface_hub import constants

    return not constants.HF_HUB_OFFLINE and download.reachable(constants.ENDPOINT)


def fetch_snapshot(name: str, patterns: Sequence[str], *, seconds: float | None = None) -> Path:
    """Return the folder in the local cache with the newest version of a model.

    Args:
        name: Its name, owner/name.
        patterns: The files that are wanted.
        seconds: After so long in all it is given up. Default: it may take any time while bytes
            come.

    Raises:
        TimeoutError: It took longer, or nothing came for `SILENCE` seconds.
        Exception: What the library raises: of the network, of the disk, of an answer that is none.
    """
    from huggingface_hub import constants, snapshot_download
    from huggingface_hub.file_download import repo_folder_name

    cache = Path(constants.HF_HUB_CACHE) / repo_folder_name(repo_id=name, repo_type="model")
    with _chunks_of(CHUNK):
        answer = download.Answer(
            lambda: snapshot_download(name, allow_patterns=list(patterns), etag_timeout=SILENCE)
        )
        end = None if seconds is None else time.monotonic() + seconds
        size, heard = -1, time.monotonic()
        while not answer.wait(0.2):
            now, before = time.monotonic(), size
            size = _size(cache)
            if size != before:
                heard = now
            if end is not None and now > end:
                raise TimeoutError(f"it took more than {seconds:.0f} s")
            if now - heard > SILENCE:
                raise TimeoutError(f"nothing came for {SILENCE:.0f} s")
        return Path(answer.value())


@contextmanager
def _chunks_of(size: int) -> Iterator[None]:
    """Let the library write what it has got after each `size` bytes, by plain HTTP: its other way,
    Xet, has no time limit."""
    from huggingface_hub import constants

    names = ("DOWNLOAD_CHUNK_SIZE", "HF_HUB_DISABLE_XET")
    before = [getattr(constants, name) for name in names]
    for name, value in zip(names, (size, True), strict=True):
        setattr(constants, name, value)
    try:
        yield
    finally:
        for name, value in zip(names, before, strict=True):
            setattr(constants, name, value)


def _size(folder: Path) -> int:
    """Return the bytes of all files in `folder`, some of which may just be removed."""
    total = 0
    for file in folder.rglob("*"):
        try:
            total += 1 + file.lstat().st_size
        except OSError:
            continue
    return total
