"""The weights that come with the package."""

from pathlib import Path

BASE = Path(__file__).parent / "base"  # DistilRNN-base, from which a student starts
COLA = Path(__file__).parent / "cola"  # a student of CoLA, exported with 8-bit matrices
