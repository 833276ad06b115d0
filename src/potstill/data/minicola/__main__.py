"""Write MiniCoLA: python -m potstill.data.minicola [FOLDER], by default into the package."""

import sys
from pathlib import Path

from potstill.data.minicola.grammar import write

if __name__ == "__main__":
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent
    folder.mkdir(parents=True, exist_ok=True)
    write(folder)
    print(f"wrote MiniCoLA into {folder}")
