"""Models of the Hugging Face Hub, by the name owner/name."""

import logging
import re
from pathlib import Path

from potstill.data.hub import TIME_LIMIT, fetch_snapshot, hub_reachable
from potstill.errors import UserError

FILES = ["*.safetensors", "*.json", "*.onnx"]  # nothing is unpickled, and no code is run

logger = logging.getLogger(__name__)


def is_hub_name(path: str | Path) -> bool:
    """Return True for owner/name where there is neither such a folder nor a folder `owner`."""
    name = str(path)
    return bool(re.fullmatch(r"\w[\w.-]*/\w[\w.-]*", name)) and not Path(name).parent.exists()


def download_model(name: str, *, seconds: float = TIME_LIMIT) -> Path:
    """Return the folder of a model of the Hub: its newest version, or where the Hub can't be
    reached, the one in the local cache.

    Only safetensors, JSON and ONNX files are asked for.

    Args:
        name: Its name, owner/name.
        seconds: After so long a download is given up.

    Raises:
        UserError: There is no such model, or it can't be downloaded in time.
    """
    # Loaded here, as a model in a local folder does without it.
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError, RepositoryNotFoundError

    if not hub_reachable():
        try:
            folder = snapshot_download(name, allow_patterns=FILES, local_files_only=True)
        except LocalEntryNotFoundError as error:
            raise UserError(
                f"`path` {name}: there is no such folder, it is not in the local cache, and the "
                "Hugging Face Hub can't be reached; connect, or name a folder."
            ) from error
        logger.info(f"{name}: the copy in the local cache, as the Hub can't be reached")
        return Path(folder)
    try:
        return fetch_snapshot(name, FILES, seconds=seconds)
    except TimeoutError as error:
        raise UserError(
            f"{name} was not downloaded in time: {error}; what is there already is kept, so try "
            "again."
        ) from None
    except RepositoryNotFoundError as error:
        raise UserError(
            f"`path` {name}: there is no such folder, and no such model on the Hugging Face Hub "
            "(a private one needs a token in HF_TOKEN)."
        ) from error
    except Exception as error:  # of the network, of the disk, of the library
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
        raise UserError(f"{name} can't be downloaded from the Hub: {reason}.") from error
