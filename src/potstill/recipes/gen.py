"""The command gen: a prompt in, its continuation by the base decoder out."""

import sys
from collections.abc import Callable
from typing import Any

import torch

from potstill.decoder.base import max_positions
from potstill.decoder.hub import find_base_model
from potstill.errors import UsageError, UserError
from potstill.recipes.console import Shown, choice_line, note
from potstill.settings import SamplingSettings
from potstill.training.distributed import process


def generate(prompt: str, *, seed: int, gpt_variant: str, sampling: SamplingSettings) -> None:
    """Print `prompt` and its continuation; see `commands.gen`."""
    base_model = find_base_model(gpt_variant)
    # Only the text goes to standard output, for whoever pipes it on.
    note(choice_line("base", base_model.title, base_model.reason))
    model = base_model.language_model().to(process().device)
    stdout = Shown(sys.stdout)

    def show(text: str) -> None:
        stdout.write(text)
        stdout.flush()

    continue_prompt(model, base_model.tokenizer(), prompt, sampling, seed=seed, show=show)
    print()


def continue_prompt(
    model: Any,
    tokenizer: Any,
    prompt: str,
    sampling: SamplingSettings,
    *,
    seed: int,
    show: Callable[[str], None],
) -> None:
    """Continue `prompt`, and pass the whole text to `show` piece by piece, as it is made.

    top_k keeps the most probable tokens, top_p the most probable ones that make up this
    probability (Holtzman et al. 2020, *The Curious Case of Neural Text Degeneration*, section 3.1).

    Raises:
        UserError: The prompt is empty, or the model has too few positions for the text.
    """
    from transformers import GenerationConfig, TextStreamer

    inputs = tokenizer(prompt, return_tensors="pt", add_special_tokens=False).to(model.device)
    prompt_tokens = inputs["input_ids"].shape[1]
    if prompt_tokens == 0:
        raise UsageError("`prompt` is empty; give at least one word to continue.")
    tokens = prompt_tokens + sampling.max_new_tokens
    limit = max_positions(model, default=tokens)
    if tokens > limit:
        raise UserError(
            f"the prompt's {prompt_tokens} tokens and `max_new_tokens` {sampling.max_new_tokens} "
            f"exceed the {limit} that this decoder can read; shorten either."
        )

    class Streamer(TextStreamer):
        def on_finalized_text(self, text: str, stream_end: bool = False) -> None:
            show(text)

    random = {
        "temperature": sampling.temperature,
        "top_k": sampling.top_k,
        "top_p": sampling.top_p,
    }
    config = GenerationConfig(
        max_new_tokens=sampling.max_new_tokens,
        do_sample=not sampling.greedy,
        use_cache=True,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.eos_token_id,
        **({} if sampling.greedy else random),
    )
    torch.manual_seed(seed)
    show(prompt)
    streamer = Streamer(tokenizer, skip_prompt=True, skip_special_tokens=True)
    model.generate(**inputs, generation_config=config, streamer=streamer)
