"""The command pretrain: a decoder in, a student that has read its text out."""

import importlib.metadata
import logging
import time
from dataclasses import asdict
from pathlib import Path

import torch

from potstill import __version__
from potstill.decoder.hub import BaseModel, find_base_model
from potstill.errors import UsageError, UserError
from potstill.files import atomic_folder, check_writable
from potstill.locks import exclusive
from potstill.model_card import write_card
from potstill.pretraining.beginnings import BEGINNINGS
from potstill.pretraining.heads import PretrainingHeads
from potstill.pretraining.sampling import BASIS_TEXTS, MAX_TOKENS, SHARD_TEXTS, Writer
from potstill.pretraining.text import concatenate_texts, in_student_tokens, read_shard
from potstill.pretraining.train import amplify_states, pretrain_base
from potstill.pretraining.vocabulary import truncate_vocabulary
from potstill.progress import Progress, no_progress
from potstill.recipes._unfinished import alone_in, check_target, saving_state, unfinished
from potstill.recipes.console import format_count, log_choice
from potstill.settings import RUN_CONTROL, GeneralTextSettings, NetworkSettings, TrainSettings
from potstill.student.base import save_base
from potstill.student.model import DistilRNN, StudentConfig
from potstill.training.checkpoint import Checkpoint
from potstill.training.distributed import process
from potstill.training.history import EpochMetrics
from potstill.training.precision import resolve_precision
from potstill.transfer.top_k import TOP_K

FRACTION_SPLIT = 0.5  # of the texts, into their sentences
AMPLIFIED = 4.0  # states of the highest layer, before they are saved
EPOCHS = 7
BATCH_SIZE = 1024
LR = 0.014

logger = logging.getLogger(__name__)


def pretrain(
    seed: int,
    *,
    gpt_variant: str,
    text: GeneralTextSettings,
    network: NetworkSettings,
    train: TrainSettings,
    output: Path,
    text_path: Path,
    shard_texts: int = SHARD_TEXTS,
    basis_texts: int = BASIS_TEXTS,
    progress: Progress = no_progress,
) -> None:
    """Sample general text, pretrain a student on it, and write it to `output`.

    Args:
        seed: Determines the text, the first weights, the batches and the dropout.
        gpt_variant: The decoder.
        text: How much text, and the vocabulary.
        network: The student's; it has to be bidirectional, of GRUs.
        train: How it is trained.
        output: Folder of the base; a base that is there is replaced.
        text_path: Folder of the sampled text. What is there already is not sampled again.
        shard_texts: Texts per file.
        basis_texts: Texts that the directions of the decoder's states are computed from.
        progress: Shows how far it is.

    Raises:
        UserError: A folder holds something else, the decoder is missing or of another family, or
            its vocabulary can't be shortened.
    """
    if train.minutes is not None:
        raise UsageError("`minutes` is for classifiers; give `epochs`.")
    if network.cell != "gru" or not network.bidirectional:
        raise UsageError(
            "a base reads in both directions by GRUs; leave out `cell` and `bidirectional`."
        )
    if process().num_processes > 1:
        raise UserError("pretrain runs in one process; start it without torchrun.")
    check_target(output, None, train)
    check_writable(text_path.parent, "`text_path`")
    plan = train.with_defaults(epochs=EPOCHS, batch_size=BATCH_SIZE, lr=LR)
    base_model = find_base_model(gpt_variant)
    log_choice("base", base_model.title, base_model.reason)
    vocabulary = truncate_vocabulary(base_model.tokenizer(), text.vocab_size)
    writer = Writer(
        text_path,
        base_model,
        vocabulary,
        seed,
        precision=train.precision,
        shard_texts=shard_texts,
        basis_texts=basis_texts,
    )
    with exclusive(text_path, "`text_path`"):
        files = writer.write(text.tokens, progress)
    general = concatenate_texts([read_shard(file) for file in files]).to(process().device)
    learnt = in_student_tokens(general, vocabulary, fraction_split=FRACTION_SPLIT, seed=seed)

    torch.manual_seed(seed)
    config = StudentConfig(**asdict(network), vocab_size=text.vocab_size, classes=2)
    student = DistilRNN(config, product_dtype=resolve_precision(train.precision))
    with torch.no_grad():  # as wide as PyTorch makes them, they would begin with sure answers
        student.embedding.weight.mul_(0.1)
    heads = PretrainingHeads(student, general.states.shape[1])
    device = process().device
    training = {key: value for key, value in asdict(plan).items() if key not in RUN_CONTROL}
    settings = asdict(text) | asdict(network) | training | {"text": writer.describe()}
    checkpoint = Checkpoint(unfinished(output), settings, minutes=train.save_minutes)
    started = time.perf_counter()
    with alone_in(output, train):
        with saving_state(checkpoint):
            history = pretrain_base(
                student.to(device),
                heads.to(device),
                learnt,
                plan,
                epochs=plan.epochs,
                seed=seed,
                checkpoint=checkpoint,
                bf16=device.type == "cuda",
                report=_report,
                progress=progress,
            )
        seconds = time.perf_counter() - started
        logger.info("pretrained on %d texts, %.0f s", len(learnt.tokens), seconds)
        about = {
            "SR": seed,
            "decoder": _describe(base_model),
            "text": {
                "beginnings": len(BEGINNINGS),
                "top_k": TOP_K,
                "max_tokens": MAX_TOKENS,
                "pieces": len(general.tokens),
                "decoder_tokens": len(general.tokens.values),
                "fraction_split": FRACTION_SPLIT,
                "texts": len(learnt.tokens),
                "tokens": len(learnt.tokens.values),
            },
            "training": training,
            "amplified": AMPLIFIED,
            "losses": {k: v for k, v in history[-1].items() if k not in ("epoch", "steps")},
            "versions": {"potstill": __version__, "torch": importlib.metadata.version("torch")},
        }
        amplify_states(student, AMPLIFIED)
        with atomic_folder(output) as staging:
            save_base(student, vocabulary.tokenizer, staging, about)
            write_card(staging, "base", about, {})
        checkpoint.remove()
    total = sum(parameter.numel() for parameter in student.parameters())
    logger.info("base: %s, %s parameters; start from it with `init`", output, format_count(total))


def _report(metrics: EpochMetrics) -> None:
    logger.info(
        "epoch %d: next token %.3f nats, previous token %.3f nats, replaced tokens %.3f nats; "
        "squared error of states %.3f, of their means %.3f",
        *(
            metrics[k]
            for k in ("epoch", "next_token", "previous_token", "replaced", "state", "mean_state")
        ),
    )


def _describe(base_model: BaseModel) -> dict[str, str]:
    """Return what a base says of its decoder: nothing of a folder, as it may be given away."""
    return {key: value for key, value in base_model.describe().items() if key != "folder"}
