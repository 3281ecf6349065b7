# Four words do the work: install, demo, test, lint. Each makes the virtual environment it needs.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check -q
LOWEST := .venv-lowest
SOURCES := gensdk runtime training export benchmarks examples tests .ci

.PHONY: help install demo zoo test lint format lowest bench quality clean

help:
	@echo "make install   virtual environment with everything but the developers' tools"
	@echo "make demo      sample the embedded models; then train, export, prove, sample and measure one"
	@echo "make test      the test suite"
	@echo "make lint      ruff, mypy strict for Linux, Windows and macOS, import directions"
	@echo "make format    ruff, in place"
	@echo "make lowest    train, export and sample with the lowest versions that pyproject.toml allows"
	@echo "make bench     gensdk against every peer, side by side, and the regression gate (BENCH=--quick for a look)"
	@echo "make zoo       train the embedded models anew (CHORALES=FILE CAPTIONS=FILE SPRITES=FILE for these; about half an hour, sprites 80 minutes more)"
	@echo "make quality   likelihoods, FID and label accuracy against their gates (MNIST=FOLDER for the MNIST VAE)"

# torch comes first and alone: with its exact version given, pip takes the build that this machine has.
$(VENV)/.installed: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) install -c constraints.txt -e ".[cpu,openvino,training,plot,rtx,video,audio,text,opencv]"
	touch $@

$(VENV)/.developer: $(VENV)/.installed
	$(PIP) install -c constraints.txt -e ".[dev]"
	touch $@

install: $(VENV)/.installed

demo: install
	$(BIN)/python examples/demo.py

zoo: install
	$(BIN)/python benchmarks/zoo.py $(if $(CHORALES),--chorales $(CHORALES)) $(if $(CAPTIONS),--captions $(CAPTIONS)) $(if $(SPRITES),--sprites $(SPRITES))

# A file a worker: the fixtures of a file are made once. One thread each, since the workers fill the machine. A worker
# that crashes is not replaced: pytest-xdist would wait for ever for the rest of its file.
test: $(VENV)/.developer
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n auto --dist loadfile --max-worker-restart 0

lint: $(VENV)/.developer
	$(BIN)/ruff format --check $(SOURCES)
	$(BIN)/ruff check $(SOURCES)
	$(BIN)/mypy
	for system in win32 darwin; do \
		$(BIN)/mypy --platform $$system --no-warn-unreachable --cache-dir .mypy_cache/$$system || exit 1; \
	done

format: $(VENV)/.developer
	$(BIN)/ruff format $(SOURCES)
	$(BIN)/ruff check --fix $(SOURCES)

# An environment of its own, with torch as in constraints.txt: of older ones there may be no build for this machine.
$(LOWEST)/.installed: pyproject.toml constraints.txt .ci/lowest.py
	test -x $(LOWEST)/bin/python || $(PYTHON) -m venv $(LOWEST)
	$(PYTHON) .ci/lowest.py pins > $(LOWEST)/pins.txt
	$(LOWEST)/bin/python -m pip --disable-pip-version-check -q install -r $(LOWEST)/pins.txt
	$(LOWEST)/bin/python -m pip --disable-pip-version-check -q install --no-deps -e .
	touch $@

lowest: $(LOWEST)/.installed
	GENSDK_TUNE=off $(LOWEST)/bin/python .ci/lowest.py check

bench: $(VENV)/.developer
	$(BIN)/python benchmarks/gate.py --num-inference-steps 5 --trials 4
	$(BIN)/python benchmarks/compare.py $(BENCH)

quality: install
	$(BIN)/python benchmarks/quality.py $(if $(MNIST),--mnist $(MNIST))

clean:
	rm -rf $(VENV) $(LOWEST) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
