"""The command gen: a prompt in, its continuation by the base decoder out."""

import sys
from collections.abc import Callable
from typing import Any

import torch

from potstill.decoder.base import max_positions
from potstill.decoder.hub import find_base_model
from potstill.errors import UsageError, UserError
from potstill.training.distributed import process


def generate(
    SR: int,
    gpt_variant: str,
    prompt: str,
    max_new_tokens: int,
    temperature: float,
    top_k: int,
    top_p: float,
    greedy: bool,
) -> None:
    """Prints `prompt` and what the decoder makes of it; see `commands.gen`."""
    decoder = find_base_model(gpt_variant)
    # The text alone goes to standard output, for whoever pipes it on.
    reason = f" (auto: {decoder.reason})" if decoder.reason else ""
    print(f"base: {decoder.title}{reason}", file=sys.stderr)
    unsaid = [prompt]  # until it has passed for a prompt

    def show(piece: str) -> None:
        print(*unsaid, piece, sep="", end="", flush=True)
        unsaid.clear()

    continue_prompt(
        decoder.language_model().to(process().device),
        decoder.tokenizer(),
        prompt,
        seed=SR,
        max_new_tokens=max_new_tokens,
        temperature=temperature,
        top_k=top_k,
        top_p=top_p,
        greedy=greedy,
        show=show,
    )
    print()


def continue_prompt(
    model: Any,
    tokenizer: Any,
    prompt: str,
    seed: int,
    max_new_tokens: int,
    temperature: float,
    top_k: int,
    top_p: float,
    greedy: bool,
    show: Callable[[str], None],
) -> int:
    """Continues `prompt`, hands the text to `show` piece by piece, returns the new tokens' number.

    temperature divides the logits; top_k (0: off) keeps the likeliest tokens, top_p (1: off) the
    likeliest that together have this probability (Holtzman et al. 2020, *The Curious Case of
    Neural Text Degeneration*, section 3.1); greedy takes the likeliest and draws nothing.
    """
    from transformers import GenerationConfig, TextStreamer

    inputs = tokenizer(prompt, return_tensors="pt", add_special_tokens=False).to(model.device)
    read = inputs["input_ids"].shape[1]
    if read == 0:
        raise UsageError("--prompt is empty; give at least one word to continue.")
    limit = max_positions(model, default=read + max_new_tokens)
    if read + max_new_tokens > limit:
        raise UserError(
            f"the prompt's {read} tokens and --max_new_tokens {max_new_tokens} exceed the "
            f"{limit} that this decoder can read; shorten either."
        )

    class Stream(TextStreamer):
        def on_finalized_text(self, text: str, stream_end: bool = False) -> None:
            show(text)

    sampling = {"temperature": temperature, "top_k": top_k, "top_p": top_p}
    settings = GenerationConfig(
        max_new_tokens=max_new_tokens,
        do_sample=not greedy,
        use_cache=True,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.eos_token_id,
        **({} if greedy else sampling),
    )
    torch.manual_seed(seed)
    stream = Stream(tokenizer, skip_prompt=True, skip_special_tokens=True)
    whole = model.generate(**inputs, generation_config=settings, streamer=stream)
    return whole.shape[1] - read
