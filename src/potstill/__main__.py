"""`python -m potstill COMMAND …` is the same program as `potstill COMMAND …`."""

from potstill.cli import main

if __name__ == "__main__":
    main()
