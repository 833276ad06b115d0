"""The model card of a saved model: README.md with the metadata that the Hugging Face Hub reads."""

import re
from pathlib import Path
from typing import Any, Literal

from potstill.files import write_text
from potstill.model_card_examples import LOAD, ONNX, PIPELINE

CARD = "README.md"
Kind = Literal["adapter", "student", "onnx", "merged", "base"]

# The Hub's names of the bases with short names, and their licences.
HUB_NAMES = {
    "gpt2": "openai-community/gpt2",
    "gpt2-medium": "openai-community/gpt2-medium",
    "gpt2-large": "openai-community/gpt2-large",
    "gpt2-xl": "openai-community/gpt2-xl",
    "distilgpt2": "distilbert/distilgpt2",
    "smollm2": "HuggingFaceTB/SmolLM2-135M-Instruct",
}
LICENCES = {name: "mit" for name in HUB_NAMES} | {
    "smollm2": "apache-2.0",
    "distilgpt2": "apache-2.0",
}
# The data sets that are on the Hub, or in English for certain.
DATASETS = {"CoLA": "nyu-mll/glue"}
ENGLISH = ("CoLA", "MiniCoLA")
SPLITS = {"dev": "dev", "ood": "out-of-domain dev"}
MARK = "<!-- potstill replaces this card together with the model, unless this line is removed. -->"

TITLES = {
    "adapter": "{base} with LoRA",
    "student": "DistilRNN",
    "onnx": "DistilRNN, exported",
    "merged": "{base}, tuned with LoRA and merged",
    "base": "DistilRNN-base",
}
WHAT = {
    "adapter": "A LoRA adapter that makes a text classifier of {base}, in PEFT's layout.",
    "student": "A text classifier: a small recurrent network with a tokenizer of its own.",
    "onnx": "A text classifier: a small recurrent network with a tokenizer of its own, as ONNX.",
    "merged": "A text classifier: {base} with a LoRA adapter merged into its weights, in fp32.",
    "base": "A small recurrent network pretrained on text that {base} wrote. It classifies nothing "
    "yet: `potstill distil --init FOLDER` and `potstill rnn --init FOLDER` start from it.",
}


def write_card(
    folder: Path,
    kind: Kind,
    config: dict[str, Any],
    results: dict[str, Any],
    *,
    onnx: bool = False,
) -> None:
    """Write the card of the model in `folder`, unless somebody else's card is there.

    Args:
        folder: The folder of the model.
        kind: As in `model_card`, like the other arguments.
    """
    card = folder / CARD
    if not card.exists() or MARK in card.read_text(encoding="utf-8", errors="replace"):
        write_text(card, model_card(kind, config, results, onnx=onnx))


def model_card(
    kind: Kind, config: dict[str, Any], results: dict[str, Any], *, onnx: bool = False
) -> str:
    """Return the text of a card.

    Args:
        kind: What is saved.
        config: config.json of the run that made it; may be empty.
        results: results.json of that run; may be empty.
        onnx: Whether the folder has model.onnx.
    """
    decoder = _decoder(config)
    base = decoder.get("title") or "a causal language model"
    names = {"base": _text(base)}
    lines = [f"# {TITLES[kind].format(**names)}", "", WHAT[kind].format(**names), ""]
    lines += _use(kind, config, onnx)
    if labels := config.get("labels"):
        lines += ["## Labels", "", "| index | label |", "|---:|---|"]
        lines += [f"| {i} | {_code(label)} |" for i, label in enumerate(labels)]
        lines.append("")
    lines += ["## Training", "", *_training(kind, config), ""]
    lines += _scores(results)
    lines += ["## Limits", "", *_limits(kind, config, results), "", MARK, ""]
    return f"---\n{_metadata(kind, config, results)}\n---\n\n" + "\n".join(lines)


def _use(kind: Kind, config: dict[str, Any], onnx: bool) -> list[str]:
    if kind == "base":
        return []
    use = LOAD
    if kind == "merged":
        use = PIPELINE.format(max_length=config.get("max_length", "128"))
    return ["## Use", "", use] + ([ONNX] if onnx else [])


def _decoder(config: dict[str, Any]) -> dict[str, Any]:
    """Return what is recorded of the base decoder, a student's teacher's included."""
    teacher = config.get("teacher") or {}
    return config.get("decoder") or teacher.get("decoder") or {}


def _total(config: dict[str, Any]) -> int:
    """Return the number of parameters; a base records it by itself."""
    parameters = config.get("parameters") or 0
    return parameters.get("total", 0) if isinstance(parameters, dict) else parameters


def _training(kind: Kind, config: dict[str, Any]) -> list[str]:
    lines = []
    decoder, teacher, data = _decoder(config), config.get("teacher") or {}, config.get("data") or {}
    if decoder:
        base = _text(decoder["title"])
        lines.append(f"- Base: {base}, weights {_text(decoder.get('sha256', ''))[:12]}")
    if teacher:
        lines.append(f"- Teacher: {_text(teacher['title'])}, {teacher['parameters']:,} parameters")
    if "transfer_set" in config:
        counts = config["transfer_set"]["sentences"]
        sizes = ", ".join(f"{_text(name)} {count:,}" for name, count in counts.items())
        lines.append(f"- Transfer set, sentences labelled by the teacher: {sizes}")
    if data:
        sizes = ", ".join(f"{_text(name)} {size:,}" for name, size in data["sentences"].items())
        lines.append(f"- Data: {_text(data['name'])}, sentences: {sizes}")
    if calibration := config.get("calibration"):
        lines.append(
            f"- Probabilities: calibrated on {calibration['sentences']:,} held-out sentences"
        )
    if parameters := _total(config):
        lines.append(f"- Parameters: {parameters:,}")
    if "command" in config:
        lines.append(f"- Made by `potstill {config['command']}`, seed {config['SR']}")
    if versions := config.get("versions"):
        lines.append("- Versions: " + ", ".join(f"{k} {_text(v)}" for k, v in versions.items()))
    return lines or ["The run that trained it is not recorded."]


def _scores(results: dict[str, Any]) -> list[str]:
    scored = {name: s for name, s in results.get("chosen", {}).items() if name in SPLITS}
    if not scored:
        return []
    lines = ["## Scores", "", "| split | sentences | accuracy | majority class | MCC [95 %] |"]
    lines.append("|---|---:|---:|---:|---:|")
    for name, scores in scored.items():
        low, high = scores["mcc_95"]
        lines.append(
            f"| {SPLITS[name]} | {scores['sentences']:,} | {100 * scores['accuracy']:.1f} % | "
            f"{100 * scores['majority']:.1f} % | {scores['mcc']:.3f} [{low:.3f}, {high:.3f}] |"
        )
    lines += ["", "Always answering the most frequent class has the accuracy of the column "]
    lines[-1] += '"majority class" and an MCC (Matthews correlation) of 0.'
    return [*lines, ""]


def _limits(kind: Kind, config: dict[str, Any], results: dict[str, Any]) -> list[str]:
    name = _text((config.get("data") or {}).get("name") or "")
    limits = []
    if kind != "base":
        where = f"of {name} alone" if name else "that is not recorded here"
        limits.append(f"- It learnt from data {where}; on other kinds of text it was not tried.")
        limits.append("- It answers every text with one of its labels, also where none fits.")
    if not results.get("chosen") and kind != "base":
        limits.append("- Its scores are not recorded here: score it on your own data before use.")
    if name == "CoLA":
        limits.append(
            "- It learnt from linguists' examples. It is not made to judge anybody's English."
        )
    if name == "MiniCoLA":
        limits.append("- MiniCoLA's sentences come from a small grammar; real text differs.")
    if not _licence(config):
        limits.append("- No licence is set: name one in the metadata above before publishing.")
    return limits


def _licence(config: dict[str, Any]) -> str | None:
    return LICENCES.get(_decoder(config).get("variant", ""))


def hub_name(variant: str) -> str | None:
    """Return the Hub's name of a base decoder; None for a local folder."""
    if variant in HUB_NAMES:
        return HUB_NAMES[variant]
    return variant if re.fullmatch(r"[\w.-]+/[\w.-]+", variant) else None


def _metadata(kind: Kind, config: dict[str, Any], results: dict[str, Any]) -> str:
    """Return the YAML of a card, as the Hub documents it.

    https://huggingface.co/docs/hub/model-cards#model-card-metadata
    """
    from huggingface_hub import EvalResult, ModelCardData

    data = config.get("data") or {}
    name = str(data.get("name") or "")
    tags = ["potstill"]
    tags += {"adapter": ["lora"], "merged": ["lora"], "onnx": ["onnx"]}.get(kind, [])
    if "teacher" in config:
        tags.append("distillation")
    evaluations = [
        EvalResult(
            task_type="text-classification",
            dataset_type=DATASETS.get(name, name),
            dataset_name=name,
            dataset_config="cola" if name == "CoLA" else None,
            dataset_split=SPLITS[split],
            metric_type=metric_type,
            metric_name=metric_name,
            metric_value=round(scores[key], 4),
        )
        for split, scores in results.get("chosen", {}).items()
        if split in SPLITS and name
        for metric_type, metric_name, key in (
            ("accuracy", "Accuracy", "accuracy"),
            ("matthews_correlation", "Matthews correlation", "mcc"),
            ("f1", "Macro F1", "macro_f1"),
        )
        if key in scores
    ]
    decoder = _decoder(config)
    base_model = hub_name(decoder.get("variant", ""))
    relations = {"adapter": "adapter", "merged": "finetune"}
    metadata = ModelCardData(
        language="en" if name in ENGLISH else None,
        license=_licence(config),
        library_name={"adapter": "peft", "merged": "transformers"}.get(kind, "potstill"),
        pipeline_tag=None if kind == "base" else "text-classification",
        tags=tags,
        datasets=[DATASETS[name]] if name in DATASETS else None,
        metrics=["accuracy", "matthews_correlation", "f1"] if evaluations else None,
        base_model=base_model,
        base_model_relation=relations.get(kind) if base_model else None,
        model_name=TITLES[kind].format(base=decoder.get("title", "decoder")),
        eval_results=evaluations or None,
    )
    return metadata.to_yaml().strip()


def _text(value: object) -> str:
    """Return `value` as Markdown text of one line: nothing in it is markup."""
    return re.sub(r"([\\`*_\[\]<>|~$&])", r"\\\1", " ".join(str(value).split()))


def _code(value: object) -> str:
    """Return `value` as a code span of a table: the Hub makes emoji of a text such as :heart:."""
    text = " ".join(str(value).split()).replace("|", "\\|")
    fence = "`" * (max(map(len, re.findall("`+", text)), default=0) + 1)
    space = " " if "`" in text else ""
    return f"{fence}{space}{text}{space}{fence}"
