"""The examples of a model card: how what is saved is used."""

LOAD = """\
```python
import potstill

classifier = potstill.load("owner/name")  # or the folder with these files
classifier.predict(["A text to classify."])
classifier.predict_proba(["A text to classify."])  # columns as in classifier.classes_
```
"""
PIPELINE = """\
```python
from transformers import pipeline

classifier = pipeline("text-classification", model="owner/name")  # or the folder with these files
classifier("A text to classify.", truncation=True)
```

The tokenizer puts the start token in front of each text, as in training. `truncation=True` cuts
long texts at the length of training, {max_length} tokens.
"""
ONNX_PYTHON = """\
```python
import json

import numpy as np
import onnxruntime
from tokenizers import Tokenizer

config = json.load(open("config.json", encoding="utf-8"))
tokenizer = Tokenizer.from_file("tokenizer.json")
tokenizer.encode_special_tokens = True  # <pad> in a text is five characters
session = onnxruntime.InferenceSession("model.onnx")

for text in ["A text to classify.", "Another one."]:
    ids = tokenizer.encode(text).ids[: config["max_length"]]
    inputs = {"input_ids": np.array([ids], np.int64), "lengths": np.array([len(ids)], np.int32)}
    logits = session.run(["logits"], inputs)[0][0]
    probabilities = np.exp(logits - logits.max()) / np.exp(logits - logits.max()).sum()
    print(text, dict(zip(config["labels"], probabilities.tolist())))
```
"""
ONNX_JAVASCRIPT = """\
```javascript
import fs from "node:fs";
import ort from "onnxruntime-web";
import { Tokenizer } from "@huggingface/tokenizers";

const config = JSON.parse(fs.readFileSync("config.json", "utf8"));
const file = JSON.parse(fs.readFileSync("tokenizer.json", "utf8"));
// Without added tokens, <pad> in a text is five characters.
const tokenizer = new Tokenizer({ ...file, added_tokens: [] }, {});
const session = await ort.InferenceSession.create(fs.readFileSync("model.onnx"));

for (const text of ["A text to classify.", "Another one."]) {
  const ids = tokenizer.encode(text).ids.slice(0, config.max_length);
  const input_ids = new ort.Tensor("int64", BigInt64Array.from(ids, BigInt), [1, ids.length]);
  const lengths = new ort.Tensor("int32", Int32Array.from([ids.length]), [1]);
  const { logits } = await session.run({ input_ids, lengths });
  const powers = Array.from(logits.data, (x) => Math.exp(x - Math.max(...logits.data)));
  const total = powers.reduce((sum, x) => sum + x);
  const pairs = config.labels.map((label, i) => [label, powers[i] / total]);
  console.log(text, Object.fromEntries(pairs));
}
```
"""
ONNX = f"""\
## Use of `model.onnx`

It maps `input_ids` (B, L), int64, padded with 0, and `lengths` (B,), int32, to `logits`
(B, classes). These examples read it from the folder that they run in. In Python, with `pip install
onnxruntime tokenizers`:

{ONNX_PYTHON}
In JavaScript, with `npm install onnxruntime-web @huggingface/tokenizers`:

{ONNX_JAVASCRIPT}"""
