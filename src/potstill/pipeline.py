"""What the commands do, step by step."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import PartialState
from torch import Tensor

from potstill import UserError, classifier, plots, runs
from potstill import student as students
from potstill.batching import predict_logits
from potstill.checkpoint import cache_folder, check_writable, read_json
from potstill.corpus import Corpus, load_corpus, load_evaluation
from potstill.decoder import find_decoder
from potstill.distillation import KeptLogits, distillation_loss, label_sentences, teacher_hash
from potstill.metrics import evaluation
from potstill.reporting import (
    EPOCH_HEADER,
    comparison_table,
    count,
    epoch_lines,
    evaluation_table,
    majorities,
    parameter_line,
    say,
)
from potstill.settings import (
    DataSettings,
    DistilSettings,
    LoRASettings,
    StudentSettings,
    TrainSettings,
)
from potstill.training import Examples, Trained, TrainingState, resolve_precision, train

# MiniCoLA is for first runs, which should take minutes.
LORA_EPOCHS = {"MiniCoLA": 1}
LORA_EPOCHS_ELSE = 3
STUDENT_EPOCHS = 20


def tune(
    SR: int,
    lora: LoRASettings,
    data: DataSettings,
    settings: TrainSettings,
    gpt_variant: str,
    folder: Path,
    plots_path: Path,
) -> None:
    """LoRA: corpus and base decoder in, adapter out."""
    runs.check_target(folder, "--model_path")
    check_writable(plots_path, "--plots_path")
    with PartialState().main_process_first():
        decoder = find_decoder(gpt_variant)
    corpus = _load(data, SR)
    _say_choice("base", decoder.title, decoder.reason)
    _say_corpus(corpus)
    epochs = settings.epochs or LORA_EPOCHS.get(corpus.name, LORA_EPOCHS_ELSE)
    task = runs.make_task(corpus, data, SR)
    tokenizer = decoder.tokenizer()
    encoded = {"train": task.train} | task.scored
    examples = {}
    for name, split in encoded.items():
        tokens, cut = classifier.encode(tokenizer, split.sentences, data.max_length)
        if cut:
            say(f"{cut} sentences of {name} are cut at --max_length {data.max_length} tokens")
        examples[name] = Examples(tokens, split.labels)

    torch.manual_seed(SR)
    model = classifier.tunable_classifier(
        decoder.base(), len(corpus.labels), lora.LoRA_rank, lora.alpha, lora.LoRA_dropout
    )
    half = resolve_precision(settings.precision) == torch.bfloat16
    if half:
        for parameter in model.base.parameters():
            if not parameter.requires_grad:
                parameter.data = parameter.data.bfloat16()
    total, trainable = classifier.parameter_counts(model)
    say(f"{parameter_line(total, trainable)}; arithmetic: {'bf16' if half else 'fp32'}")

    config = runs.describe_run("LoRA", SR, corpus, [lora, data, settings], epochs)
    config["decoder"] = runs.describe_decoder(decoder)
    config["parameters"] = {"total": total, "trainable": trainable}
    state = _training_state(folder, config)
    trained = _fit(model, examples, config, settings, state, task, _cross_entropy(task))

    results: dict[str, Any] = {}

    def save(staging: Path) -> None:
        """Writes the chosen epoch's adapter, reads it back and scores what was read."""
        trained.restore(model)
        classifier.save_adapter(model, staging, str(decoder.folder))
        classifier.load_adapter_weights(model, staging)
        logits = {n: predict_logits(model, examples[n].tokens) for n in task.scored}
        results.update(_results(logits, task, trained, total))
        for name, scores in results["chosen"].items():
            if scores["accuracy"] != trained.best[name]["accuracy"]:
                raise RuntimeError(f"the adapter read back scores otherwise on {name}")
        teacher = teacher_hash(
            config["decoder"]["sha256"], staging / classifier.ADAPTER_WEIGHTS, data.max_length
        )
        # What was just computed needs no second time when this model becomes a teacher.
        for name, split in task.scored.items():
            KeptLogits(teacher).put(split.sentences, logits[name])

    _finish(folder, config, trained, results, save, state)
    title = f"{decoder.title}, LoRA rank {lora.LoRA_rank}, on {corpus.name}, SR {SR}"
    _plot(trained, task, title, plots_path / "lora_training_plot.png")
    _summary(f"{decoder.title} + LoRA", results, trained)
    say(f"adapter: {folder}; plot: {plots_path / 'lora_training_plot.png'}")


def distil(
    SR: int,
    distillation: DistilSettings,
    shape: StudentSettings,
    data: DataSettings,
    settings: TrainSettings,
    teacher_path: Path,
    gpt_variant: str | None,
    folder: Path,
    plots_path: Path,
) -> None:
    """distil: corpus and tuned decoder in, DistilRNN out."""
    runs.check_target(folder, "--student_path")
    check_writable(plots_path, "--plots_path")
    check_writable(cache_folder(), "POTSTILL_CACHE")
    with PartialState().main_process_first():
        teacher = runs.load_model(teacher_path, settings.precision, gpt_variant)
    if not teacher.sha256:
        raise UserError(f"--model_path {teacher_path} is a student; a teacher is a LoRA adapter.")
    tuned_on = teacher.config.get("data", {}).get("path")
    reason = ""
    if data.data == "auto" and tuned_on:
        data = replace(
            data, data="minicola" if teacher.config["data"]["name"] == "MiniCoLA" else tuned_on
        )
        reason = "what the teacher was tuned on"
    corpus = _load(data, SR)
    if corpus.labels != teacher.labels:
        raise UserError(
            f"the teacher in {teacher_path} knows {', '.join(teacher.labels)}, "
            f"but {corpus.path} is labelled {', '.join(corpus.labels)}."
        )
    _say_choice("teacher", teacher.title, "")
    _say_corpus(corpus, reason)
    task = runs.make_task(corpus, data, SR)
    kept = KeptLogits(teacher.sha256)
    targets, computed = label_sentences(task.train.sentences, kept, teacher.logits)
    scored = {
        name: label_sentences(split.sentences, kept, teacher.logits)
        for name, split in task.scored.items()
    }
    computed += sum(n for _, n in scored.values())
    say(f"teacher logits: {computed} computed, the others kept from before ({kept.file})")
    teacher_scores = runs.score_splits({n: t for n, (t, _) in scored.items()}, task.scored)
    labels = torch.tensor(task.train.labels)

    def loss(logits: Tensor, index: Tensor) -> Tensor:
        return distillation_loss(
            logits,
            targets[index].to(logits.device),
            labels[index].to(logits.device),
            distillation.temperature,
            distillation.alpha,
            distillation.loss,
        )

    config = runs.describe_run("distil", SR, corpus, [distillation, shape, data, settings], 0)
    config["teacher"] = {
        "path": str(teacher_path),
        "sha256": teacher.sha256,
        "title": teacher.title,
    }
    rows = {teacher.title: {"parameters": teacher.parameters, "scores": teacher_scores}}
    plot = plots_path / "distilrnn_training_plot.png"
    title = f"DistilRNN from {teacher.title}"
    _train_student(SR, shape, settings, task, config, loss, folder, rows, title, plot)


def train_control(
    SR: int,
    shape: StudentSettings,
    data: DataSettings,
    settings: TrainSettings,
    folder: Path,
    plots_path: Path,
) -> None:
    """rnn: the student that `distil` trains, without a teacher."""
    runs.check_target(folder, "--student_path")
    check_writable(plots_path, "--plots_path")
    corpus = _load(data, SR)
    _say_corpus(corpus)
    task = runs.make_task(corpus, data, SR)
    config = runs.describe_run("rnn", SR, corpus, [shape, data, settings], 0)
    plot, title = plots_path / "rnn_training_plot.png", "DistilRNN without a teacher"
    loss = _cross_entropy(task)
    _train_student(SR, shape, settings, task, config, loss, folder, {}, title, plot)


def _train_student(
    SR: int,
    shape: StudentSettings,
    settings: TrainSettings,
    task: runs.Task,
    config: dict[str, Any],
    loss: Any,
    folder: Path,
    rows: dict[str, Any],
    title: str,
    plot: Path,
) -> None:
    """Trains, writes and reports a student; `rows` of the final table stand above its own."""
    epochs = settings.epochs or STUDENT_EPOCHS
    max_length = config["max_length"]
    tokenizer = students.train_tokenizer(task.train.sentences, shape.vocab_size)
    examples = {
        name: Examples(students.encode(tokenizer, split.sentences, max_length), split.labels)
        for name, split in ({"train": task.train} | task.scored).items()
    }
    torch.manual_seed(SR)
    shared = {k: v for k, v in config["settings"].items() if k in StudentSettings.__annotations__}
    shared["vocab_size"] = tokenizer.get_vocab_size()
    model = students.DistilRNN(students.StudentConfig(classes=len(task.corpus.labels), **shared))
    total, _ = classifier.parameter_counts(model)
    ratios = [f"1/{row['parameters'] / total:.0f} of {name}" for name, row in rows.items()]
    say(f"student: DistilRNN, {count(total)} parameters" + "".join(f", {r}" for r in ratios))
    config["settings"]["epochs"] = epochs
    config["student"] = students.describe(model)
    config["parameters"] = {"total": total, "trainable": total}
    state = _training_state(folder, config)
    trained = _fit(model, examples, config, settings, state, task, loss)
    results: dict[str, Any] = {}

    def save(staging: Path) -> None:
        trained.restore(model)
        students.save_student(model, tokenizer, staging)
        logits = {n: predict_logits(model, examples[n].tokens) for n in task.scored}
        results.update(_results(logits, task, trained, total))

    _finish(folder, config, trained, results, save, state)
    _plot(trained, task, f"{title}, on {task.corpus.name}, SR {SR}", plot)
    name = "student" if config["command"] == "distil" else "control"
    _summary(name, results, trained)
    rows |= {f"DistilRNN ({name})": {"parameters": total, "scores": results["chosen"]}}
    rows |= _sibling(folder, config)
    majority = {
        n: {"accuracy": s["majority"], "mcc": 0.0, "mcc_95": [0.0, 0.0]}
        for n, s in results["chosen"].items()
    }
    rows["majority class"] = {"parameters": None, "scores": majority}
    comparison_table(f"{task.corpus.name}, SR {SR}", rows)
    say(f"student: {folder}; plot: {plot}")


def evaluate(
    model_path: Path | None,
    data: str,
    text_column: str | None,
    label_column: str | None,
    precision: str,
    gpt_variant: str | None,
    as_json: bool,
) -> None:
    """evaluate: a saved model and labelled data in, scores out."""
    folder = model_path or runs.newest_run()
    model = runs.load_model(folder, precision, gpt_variant)
    recorded = model.config.get("data", {})
    reason = ""
    if data == "auto" and recorded:
        data = "minicola" if recorded["name"] == "MiniCoLA" else recorded["path"]
        reason = "what it was trained on"
    corpus = load_evaluation(data, model.labels, text_column, label_column)
    if not as_json:
        _say_choice("model", f"{model.title} in {folder}", "" if model_path else "trained last")
        _say_corpus(corpus, reason)
    report = {}
    for name, split in corpus.splits.items():
        report[name] = evaluation(
            model.logits(split.sentences).numpy(), split.labels, split.sources
        )
        report[name]["grouped_by"] = "source" if corpus.name == "CoLA" else "phenomenon"
        if not as_json:
            evaluation_table(name, report[name], list(model.labels))
    if as_json:
        about = {"model": str(folder), "data": corpus.describe()}
        print(json.dumps(about | {"splits": report}, ensure_ascii=False))


def predict(
    sentences: list[str],
    model_path: Path | None,
    precision: str,
    gpt_variant: str | None,
    as_json: bool,
) -> None:
    """predict: a saved model and sentences in, a class and its probability each out."""
    folder = model_path or runs.newest_run()
    model = runs.load_model(folder, precision, gpt_variant)
    if not as_json:
        _say_choice("model", f"{model.title} in {folder}", "" if model_path else "trained last")
    width = max(map(len, model.labels))
    for sentence, row in zip(sentences, model.logits(sentences).softmax(1).tolist(), strict=True):
        best = int(np.argmax(row))
        if as_json:
            probabilities = dict(zip(model.labels, (round(p, 6) for p in row), strict=True))
            line = {"sentence": sentence, "label": model.labels[best]}
            print(json.dumps(line | {"probabilities": probabilities}, ensure_ascii=False))
        else:
            print(f"{model.labels[best]:<{width}}  {100 * row[best]:5.1f} %  {sentence}")


def _load(data: DataSettings, SR: int) -> Corpus:
    with PartialState().main_process_first():
        return load_corpus(data.data, data.text_column, data.label_column, SR)


def _say_choice(what: str, title: str, reason: str) -> None:
    say(f"{what}: {title}" + (f" (auto: {reason})" if reason else ""))


def _say_corpus(corpus: Corpus, reason: str = "") -> None:
    sizes = ", ".join(f"{name} {len(split)}" for name, split in corpus.splits.items())
    _say_choice("data", f"{corpus.name}, {sizes} sentences", reason or corpus.reason)


def _cross_entropy(task: runs.Task) -> Any:
    labels = torch.tensor(task.train.labels)

    def loss(logits: Tensor, index: Tensor) -> Tensor:
        return torch.nn.functional.cross_entropy(logits, labels[index].to(logits.device))

    return loss


def _training_state(folder: Path, config: dict[str, Any]) -> TrainingState:
    """Where a run keeps what it needs to go on: beside the folder it will write."""
    settings = {k: v for k, v in config["settings"].items() if k != "resume"}
    settings |= {k: config[k] for k in ("command", "SR")} | {"data": config["data"]["sha256"]}
    settings |= {k: config[k]["sha256"] for k in ("decoder", "teacher") if k in config}
    return TrainingState(folder.with_name(f"{folder.name}.unfinished"), settings)


def _fit(
    model: torch.nn.Module,
    examples: dict[str, Examples],
    config: dict[str, Any],
    settings: TrainSettings,
    state: TrainingState,
    task: runs.Task,
    loss: Any,
) -> Trained:
    majority = majorities(task.labels())
    say(EPOCH_HEADER)
    try:
        return train(
            model,
            examples["train"],
            loss,
            {name: examples[name] for name in task.scored},
            settings,
            config["settings"]["epochs"],
            config["SR"],
            state,
            lambda record: say(epoch_lines(record, majority)),
        )
    except KeyboardInterrupt:
        if state.folder.exists():
            say("the finished epochs are kept; the same command with --resume goes on after them")
        raise


def _results(
    logits: dict[str, Tensor], task: runs.Task, trained: Trained, parameters: int
) -> dict[str, Any]:
    return {
        "chosen_epoch": trained.chosen,
        "chosen": runs.score_splits(logits, task.scored),
        "last_epoch": trained.records[-1],
        "parameters": parameters,
    }


def _finish(
    folder: Path,
    config: dict[str, Any],
    trained: Trained,
    results: dict[str, Any],
    save: Any,
    state: TrainingState,
) -> None:
    # Every process takes part in scoring; what the others write is thrown away with its folder.
    main = PartialState().is_main_process
    target = folder if main else cache_folder() / f"process-{PartialState().process_index}"
    runs.write_run(target, config, trained, results, save)
    if main:
        state.remove()


def _plot(trained: Trained, task: runs.Task, title: str, file: Path) -> None:
    if PartialState().is_main_process:
        plots.training_plot(trained.records, trained.chosen, majorities(task.labels()), title, file)


def _summary(name: str, results: dict[str, Any], trained: Trained) -> None:
    """The chosen epoch and the last, side by side."""
    for split, scores in results["chosen"].items():
        record = trained.records[-1]
        last = record[split]
        say(
            f"{name} on {split}: {_brief(scores)} at epoch {trained.chosen}, chosen on train's "
            f"held-out slice; {_brief(last)} at the last, {record['epoch']}"
        )


def _brief(scores: dict[str, Any]) -> str:
    return f"accuracy {100 * scores['accuracy']:.2f} %, MCC {scores['mcc']:.4f}"


def _sibling(folder: Path, config: dict[str, Any]) -> dict[str, Any]:
    """The row of the student trained the other way, where it was run on the same terms."""
    other = "rnn" if config["command"] == "distil" else "distil"
    sibling = folder.parent / f"{other}-{config['SR']}"
    if not (sibling / "results.json").is_file():
        if other == "rnn":
            say(f"control: not run yet; `potstill rnn {config['SR']}` trains it")
        return {}
    found = read_json(sibling / "config.json")
    same = all(
        found["settings"].get(key) == config["settings"].get(key)
        for key in (*StudentSettings.__annotations__, *TrainSettings.__annotations__, "holdout")
        if key != "resume"
    )
    if not same or found["data"]["sha256"] != config["data"]["sha256"]:
        say(f"{sibling} was trained with other settings or data and is left out of the table")
        return {}
    results = read_json(sibling / "results.json")
    name = "DistilRNN (control)" if other == "rnn" else "DistilRNN (student)"
    return {name: {"parameters": results["parameters"], "scores": results["chosen"]}}
