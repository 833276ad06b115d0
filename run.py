"""`python run.py COMMAND …` from a checkout is the same program as `potstill COMMAND …`."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "src"))

from potstill.cli import main

if __name__ == "__main__":
    main(prog="python run.py")
