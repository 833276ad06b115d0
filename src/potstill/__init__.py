"""potstill: turn a GPT into a tiny classifier."""

import importlib
from typing import TYPE_CHECKING, Any

from potstill.errors import PotstillError, UsageError, UserError, missing_extra

if TYPE_CHECKING:
    from potstill.data.check import DataReport
    from potstill.data.corpus import Corpus, load_corpus
    from potstill.decoder.lora import LoRALinear
    from potstill.estimator import DistilRNNClassifier
    from potstill.inference.classifier import Classifier
    from potstill.inference.load import load
    from potstill.recipes.check import check
    from potstill.recipes.console import progress_bar
    from potstill.recipes.distil import distil
    from potstill.recipes.lora import finetune
    from potstill.recipes.make import make
    from potstill.recipes.rnn import train_baseline
    from potstill.settings import (
        DataSettings,
        DecisionSettings,
        DistilSettings,
        LoRASettings,
        PretrainSettings,
        SamplingSettings,
        StudentSettings,
        TrainSettings,
    )
    from potstill.student.model import DistilRNN
    from potstill.transfer.dataset import TransferSet
    from potstill.transfer.settings import TransferSettings

__version__ = "0.1.0"
__all__ = [
    "Classifier",
    "Corpus",
    "DataReport",
    "DataSettings",
    "DecisionSettings",
    "DistilRNN",
    "DistilRNNClassifier",
    "DistilSettings",
    "LoRALinear",
    "LoRASettings",
    "PotstillError",
    "PretrainSettings",
    "SamplingSettings",
    "StudentSettings",
    "TrainSettings",
    "TransferSet",
    "TransferSettings",
    "UsageError",
    "UserError",
    "__version__",
    "check",
    "distil",
    "finetune",
    "load",
    "load_corpus",
    "make",
    "progress_bar",
    "train_baseline",
]

# Where the public names are. Each is imported when it is first used, so that `import potstill`
# loads nothing heavy and a plain installation can use what it has.
_MODULES = {
    "Classifier": "potstill.inference.classifier",
    "Corpus": "potstill.data.corpus",
    "DataReport": "potstill.data.check",
    "DataSettings": "potstill.settings",
    "DecisionSettings": "potstill.settings",
    "DistilRNN": "potstill.student.model",
    "DistilRNNClassifier": "potstill.estimator",
    "DistilSettings": "potstill.settings",
    "LoRALinear": "potstill.decoder.lora",
    "LoRASettings": "potstill.settings",
    "PretrainSettings": "potstill.settings",
    "SamplingSettings": "potstill.settings",
    "StudentSettings": "potstill.settings",
    "TrainSettings": "potstill.settings",
    "TransferSet": "potstill.transfer.dataset",
    "TransferSettings": "potstill.transfer.settings",
    "check": "potstill.recipes.check",
    "distil": "potstill.recipes.distil",
    "finetune": "potstill.recipes.lora",
    "load": "potstill.inference.load",
    "load_corpus": "potstill.data.corpus",
    "make": "potstill.recipes.make",
    "progress_bar": "potstill.recipes.console",
    "train_baseline": "potstill.recipes.rnn",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module 'potstill' has no attribute {name!r}")
    try:
        module = importlib.import_module(_MODULES[name])
    except ModuleNotFoundError as error:
        raise missing_extra(error) from None
    value = globals()[name] = getattr(module, name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
