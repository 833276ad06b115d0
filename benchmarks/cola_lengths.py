"""Write cola_lengths.json: how many of CoLA's training sentences have how many SmolLM2 tokens.

    python benchmarks/cola_lengths.py FOLDER_OF_COLA

Only the counts are stored, so that the benchmarks need no file of CoLA's.
"""

import json
import sys
from collections import Counter
from pathlib import Path

from potstill.data.corpus import load_corpus
from potstill.decoder.hub import find_base_model

sentences = load_corpus(sys.argv[1]).splits["train"].sentences
tokens = find_base_model("smollm2").tokenizer()(sentences, add_special_tokens=False)["input_ids"]
histogram = dict(sorted(Counter(map(len, tokens)).items()))
Path(__file__).with_suffix(".json").write_text(json.dumps(histogram) + "\n")
print(f"{len(tokens)} sentences, {sum(map(len, tokens)) / len(tokens):.2f} tokens on average")
