"""The command rnn: the student that distil would train, without a teacher."""

from pathlib import Path

from potstill.distillation.dataset import Aim
from potstill.recipes._run import Run, check_target, describe_run, read_task
from potstill.recipes.distil import train_student
from potstill.settings import DataSettings, PretrainSettings, StudentSettings, TrainSettings


def train_control(
    SR: int,
    shape: StudentSettings,
    pretraining: PretrainSettings,
    data: DataSettings,
    settings: TrainSettings,
    folder: Path,
    plots_path: Path,
) -> None:
    """Trains the student that `distil` would, on the labels alone; see `commands.rnn`."""
    check_target(folder, "--student_path", plots_path, settings.resume)
    task = read_task(data, SR)
    config = describe_run("rnn", SR, task.corpus, [shape, pretraining, data, settings], 0)
    title = f"DistilRNN without a teacher, on {task.corpus.name}, SR {SR}"
    plot = plots_path / "rnn_training_plot.png"
    run = Run(task, config, settings, folder, plot, title)
    train_student(run, shape, pretraining, None, Aim(task.cross_entropy()))
