"""Small sentences whose verbs agree or don't, and settings of a small student for them."""

from typing import Any

import numpy as np

SMALL: dict[str, Any] = {
    "hidden_size": 8,
    "embedding_size": 8,
    "layers": 1,
    "vocab_size": 300,
    "epochs": 3,
    "pretrain_epochs": 1,
    "batch_size": 8,
}
QUICK = SMALL | {"epochs": 1, "pretrain_epochs": 0}
NOUNS = ("cat", "cats", "dog", "dogs", "book", "books")
TEXTS = [f"The {NOUNS[i % 6]} number {i} {('is', 'are')[i % 7 % 2]} old." for i in range(48)]
AGREES = np.array([("s number" in text) == (" are " in text) for text in TEXTS])
LABELS = np.where(AGREES, "good", "bad")
