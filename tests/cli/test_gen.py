"""The command gen."""

import contextlib
import io
import json
import shutil
from pathlib import Path

import pytest

from potstill.cli import main
from potstill.cli.commands.use import SERENITY
from potstill.decoder.hub import find_base_model
from tests.cli.conftest import read_json, run


class TestGen:
    PROMPT = ("--prompt", "The books on the table")

    @pytest.mark.parametrize("new", [1, 25])
    @pytest.mark.parametrize("tiny", ["tiny_gpt2", "tiny_llama"])
    def test_greedy_is_transformers_greedy_without_cache(
        self, tiny: str, new: int, request: pytest.FixtureRequest
    ) -> None:
        folder = request.getfixturevalue(tiny)
        decoder = find_base_model(str(folder))
        tokenizer = decoder.tokenizer()
        inputs = tokenizer(self.PROMPT[1], return_tensors="pt")
        tokens = decoder.language_model().generate(
            **inputs, do_sample=False, use_cache=False, max_new_tokens=new, pad_token_id=0
        )[0, inputs["input_ids"].shape[1] :]
        assert len(tokens) <= new
        expected = self.PROMPT[1] + tokenizer.decode(tokens, skip_special_tokens=True) + "\n"
        flags = ("--gpt_variant", folder, *self.PROMPT, "--max_new_tokens", new)
        for SR, more in ((1, ["--greedy"]), (2, ["--greedy"]), (3, ["--top_k", 1])):
            result = run("gen", SR, *flags, *more)
            assert result == (0, expected, f"base: {folder.name}\n")

    def test_the_seed_determines_the_text(self, tiny_gpt2: Path) -> None:
        first, again, other_seed = (
            run("gen", SR, "--gpt_variant", tiny_gpt2, *self.PROMPT, "--max_new_tokens", 30).out
            for SR in (1, 1, 2)
        )
        assert first == again != other_seed

    def test_text_is_printed_as_it_is_generated(self, tiny_gpt2: Path) -> None:
        written: list[str] = []

        class Screen(io.StringIO):
            def write(self, text: str) -> int:
                written.append(text)
                return len(text)

        with contextlib.redirect_stdout(Screen()):
            main(args=["gen", "1", "--gpt_variant", str(tiny_gpt2), *self.PROMPT])
        pieces = [text for text in written if text.strip()]
        assert pieces[0] == self.PROMPT[1]
        assert len(pieces) > 3

    def test_the_default_prompt_is_the_serenity_prayer(
        self, tiny_llama: Path, tmp_path: Path
    ) -> None:
        folder = Path(shutil.copytree(tiny_llama, tmp_path / "longer"))
        config = read_json(folder / "config.json") | {"max_position_embeddings": 512}
        (folder / "config.json").write_text(json.dumps(config))
        result = run("gen", 1, "--gpt_variant", folder, "--max_new_tokens", 2)
        assert result.code == 0
        assert result.out.startswith(SERENITY)

    def test_prompt_and_new_tokens_must_fit_the_positions(self, tiny_gpt2: Path) -> None:
        flags = ("--gpt_variant", tiny_gpt2, *self.PROMPT, "--max_new_tokens")
        tokens = len(find_base_model(str(tiny_gpt2)).tokenizer()(self.PROMPT[1])["input_ids"])
        assert run("gen", 1, *flags, 64 - tokens).code == 0
        result = run("gen", 1, *flags, 65 - tokens)
        assert (result.code, result.out) == (1, "")
        assert "exceed the 64 that this decoder can read; shorten either" in result.err
