# Two commands on a fresh machine: `make sweep` runs the main job, `make test` passes all tests.
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready

.PHONY: sweep test slow survive check docs faults bench bench-check clean

sweep: $(READY)  ## the quickstart: embedded data, a few minutes on two cores
	$(BIN)/fewtune sweep

# those that start a Ray use both cores already, the others go two at a time, here and in `slow`;
# branch coverage over both; below the threshold of pyproject.toml the second one fails, and
# `coverage report` names the lines
test: $(READY)  ## every fast test, and those that start a local Ray
	$(BIN)/python -m pytest --durations=10 -n 2 --cov --cov-report= --cov-fail-under=0
	$(BIN)/python -m pytest --durations=10 -m "cluster and not slow" --cov --cov-append --cov-report=

slow: $(READY)  ## the heavy tests and the independent references, which CI runs too
	$(BIN)/python -m pytest --durations=20 -n 2 -m "(slow or reference) and not (cluster or alone)"
	$(BIN)/python -m pytest --durations=20 -m "(slow or reference) and (cluster or alone) and not faults"

survive: $(READY)  ## every fault of a cluster once, on three hosts: a quarter of an hour, as root
	$(BIN)/python -m pytest --durations=20 -m faults

check: $(READY)  ## format, lint, types, architecture
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

docs: $(READY)  ## what of the documents follows from the code: docs/reference.md
	$(BIN)/python -m docs.reference

faults: $(READY)  ## every fault of a cluster with all its repeats, on three hosts: two hours and a half, as root
	$(BIN)/python -m benchmarks.faults

bench: $(READY)  ## every benchmark against its floor: hours; NAMES="roofline" takes some of them
	$(BIN)/python -m benchmarks $(NAMES)

bench-check: $(READY)  ## the stored results against their floors
	$(BIN)/python -m benchmarks --check $(NAMES)

# torch comes first and by its exact pin, so that no other package's range chooses another build
$(READY): pyproject.toml constraints.txt
	@echo "Installing into .venv (once, several minutes)"
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet -c constraints.txt torch
	$(BIN)/python -m pip install --quiet -c constraints.txt --editable ".[dev,bench,postgresql,onnx,loggers]"
	touch $(READY)

clean:
	rm -rf .venv
