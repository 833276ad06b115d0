"""The compiled functions of csrc/gru_int8.c: which variant serves on this CPU, and its structs."""

import ctypes
import os
import platform
from functools import cache
from pathlib import Path
from typing import Any

from potstill.ops.compiler import CSRC, load_compiled

SOURCES = [CSRC / "gru_int8.c", CSRC / "int8_products.h"]
# What a CPU must have for each variant, as /proc/cpuinfo calls it, and the compiler's flags.
VARIANTS = {
    "vnni": (
        {"avx512f", "avx512bw", "avx512dq", "avx512vl", "avx512_vnni"},
        ["-march=x86-64-v4", "-mavx512vnni", "-mamx-tile", "-mamx-int8"],
    ),
    "avx2": ({"avx2", "fma", "bmi2"}, ["-march=x86-64-v3"]),
}


@cache
def load_library() -> Any:
    """Return the compiled functions for this CPU; None where there are none.

    They are compiled at the first call on a machine. Without a C compiler, or on a CPU that has
    none of the instructions of VARIANTS, there are none.
    """
    features = _cpu_features()
    for name, (needed, flags) in VARIANTS.items():
        if needed <= features and (library := load_variant(name, flags)):
            return library
    return None


def load_variant(name: str, flags: list[str], tiles: bool = True) -> Any:
    """Return the functions compiled with `flags`; None if they can't be.

    tiles: use the CPU's matrix tiles (AMX), where it has them.
    """
    flags = ["-O3", "-ffp-contract=fast", "-Wno-psabi", *flags]
    library = load_compiled(
        f"gru_int8-{name}", [CSRC / "gru_int8.c", CSRC / "int8_products.h"], flags
    )
    if library is None:
        return None
    pointer = ctypes.c_void_p
    library.gru_int8.argtypes = [*[pointer] * 4, ctypes.c_long, *[pointer] * 3]
    library.gru_int8.restype = None
    library.gru_int8_room.argtypes = [pointer, pointer, ctypes.c_long]
    library.gru_int8_room.restype = ctypes.c_long
    library.linear.argtypes = [
        *(pointer, ctypes.c_long, ctypes.c_long),
        *(pointer, pointer, ctypes.c_long, pointer),
    ]
    library.linear.restype = None
    library.gru_int8_shift.restype = ctypes.c_long
    library.gru_int8_prepare.argtypes = [ctypes.c_long]
    library.gru_int8_prepare(tiles)
    return library


def cpus() -> int:
    """Return the number of CPUs that this process may use."""
    if hasattr(os, "sched_getaffinity"):  # Linux
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _cpu_features() -> set[str]:
    if platform.system() != "Linux" or platform.machine() != "x86_64":
        return set()
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("flags"):
            return set(line.split())
    return set()


class LayerStruct(ctypes.Structure):
    """The struct `layer` of csrc/gru_int8.c."""

    _fields_ = (
        ("inputs", ctypes.c_long),
        *((name, ctypes.c_void_p) for name in ("input", "recurrent", "input_shift")),
        *((name, ctypes.c_void_p) for name in ("input_scale", "recurrent_scale")),
        *((name, ctypes.c_void_p) for name in ("input_bias", "reset_bias")),
    )


class NetworkStruct(ctypes.Structure):
    """The struct `network` of csrc/gru_int8.c."""

    _fields_ = (
        *((name, ctypes.c_long) for name in ("layers", "directions", "units")),
        *((name, ctypes.c_void_p) for name in ("embedding", "embedding_scale", "layer")),
    )
