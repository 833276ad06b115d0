"""Runs commands in forked processes, which start at once: the libraries are imported already.

Reads one JSON object a line, {"args", "folder", "env", "out"}, and answers with two: {"pid"} when
the command has started, {"code"} when it has ended; minus the signal's number if one ended it.
"""

import json
import os
import sys
from functools import partial
from pathlib import Path
from typing import Any

from potstill.cli import main
from potstill.decoder.hub import find_base_model
from potstill.estimator import DistilRNNClassifier  # noqa: F401  # imports all that trains
from potstill.recipes import _shards, _student, make, pretrain, transfer


def run(job: dict[str, Any]) -> None:
    os.chdir(job["folder"])
    os.environ.update(job["env"])
    sys.stdout = sys.stderr = Path(job["out"]).open("w")  # noqa: SIM115  # until the process ends
    code = 0
    try:
        main("potstill", job["args"])
    except SystemExit as stop:
        code = int(stop.code or 0)
    except BaseException:
        import traceback

        traceback.print_exc()
        code = 99
    sys.stdout.flush()
    os._exit(code)


def serve(base: str) -> None:
    full_stop = find_base_model(base).tokenizer()(".")["input_ids"][0]
    transfer.make_transfer_set = partial(  # type: ignore[assignment]
        transfer.make_transfer_set, shard_size=25, end_token=full_stop
    )
    _shards.LABELLED_AT_ONCE = 5  # several savings to a file
    _student.EPOCHS = 6
    make.SAVE_MINUTES = 0.001
    make.PATIENCE = 1000.0  # what is made is not to depend on the machine's speed
    make.teacher_pays = lambda *args: True  # type: ignore[assignment]  # the tiny one knows nothing
    pretrain.pretrain = partial(pretrain.pretrain, shard_texts=15, basis_texts=15)  # type: ignore[assignment]
    for line in sys.stdin:
        job = json.loads(line)
        pid = os.fork()
        if not pid:
            run(job)
        print(json.dumps({"pid": pid}), flush=True)
        _, status = os.waitpid(pid, 0)
        print(json.dumps({"code": os.waitstatus_to_exitcode(status)}), flush=True)


if __name__ == "__main__":
    serve(sys.argv[1])
