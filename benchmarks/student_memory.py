"""The memory of a process that classifies a million sentences, and does nothing else.

    python benchmarks/student_memory.py FILE_WITH_A_SENTENCE_A_LINE

student_speed.py runs it; nothing that would need memory of its own is imported here.
"""

import json
import os
import sys
from pathlib import Path

import potstill

AT_ONCE = 10_000


def resident_mb() -> float:
    """Return the memory that this process has now, in MB (Linux)."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def memory(sentences: list[str], total: int = 1_000_000) -> dict[str, list[float]]:
    """Return the memory after every tenth of `total` sentences."""
    part = (sentences * (AT_ONCE // len(sentences) + 1))[:AT_ONCE]
    student = potstill.load()
    figures = []
    for done in range(AT_ONCE, total + 1, AT_ONCE):
        student.predict(part)
        if done % (total // 10) == 0:
            figures.append(round(resident_mb(), 1))
    return {"resident_mb": figures}


if __name__ == "__main__":
    lines = Path(sys.argv[1]).read_text(encoding="utf-8").splitlines()
    print(json.dumps(memory(lines)))
