# Two commands do everything on a fresh machine: `make verify` and `make test`. Each makes .venv here first.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check install --quiet --no-compile
UV ?= uv

.PHONY: verify verify-full mutants false-alarms fuzz test test-slow smoke lint bench peers notebooks lock clean

verify: $(VENV)/run.stamp
	$(BIN)/bayespar verify --out report

verify-full: $(VENV)/dev.stamp
	$(BIN)/bayespar verify --profile full --out report
	$(MAKE) test-slow mutants false-alarms fuzz

# Which check kills which mutant; writes the page.
mutants: $(VENV)/dev.stamp
	$(BIN)/python -m bayespar.testing.matrix --out docs/mutants.md

# How often the statistical checks refute a right function, over 10,000 replications.
false-alarms: $(VENV)/dev.stamp
	$(BIN)/python -m bayespar.testing.false_alarms

fuzz: $(VENV)/dev.stamp
	$(BIN)/python tests/fuzzing.py --count 20000

test: $(VENV)/dev.stamp
	$(BIN)/python -m pytest

# The tests marked slow, which `make test` leaves out.
test-slow: $(VENV)/dev.stamp
	$(BIN)/python -m pytest -m slow

# What a newer Python must pass: the contracts and one claim, in a few seconds.
smoke: $(VENV)/dev.stamp
	$(BIN)/python -m pytest tests/test_contracts.py tests/test_models.py
	$(BIN)/bayespar verify needle safe_or_risky --claims C1 C3

lint: $(VENV)/lint.stamp
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/basedpyright

# Every comparison, side by side: a table, and how cost grows, in bench/.
bench: $(VENV)-peers/stamp
	$(VENV)-peers/bin/python benchmarks/run.py --out bench

# Tests the adapters to other libraries, and prints what the checks find in those libraries.
peers: $(VENV)-peers/stamp
	$(VENV)-peers/bin/python -m pytest tests/peers
	$(VENV)-peers/bin/python tests/peers/real_bugs.py

# Executes every notebook in place.
notebooks: $(VENV)/notebooks.stamp
	$(BIN)/jupyter execute --inplace notebooks/*.ipynb

$(VENV)/run.stamp: lock/run.txt pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(PIP) --require-hashes -r lock/run.txt
	$(PIP) --no-deps --no-build-isolation --editable .
	touch $@

$(VENV)/dev.stamp: $(VENV)/run.stamp lock/test.txt
	$(PIP) --require-hashes -r lock/test.txt
	touch $@

$(VENV)/lint.stamp: $(VENV)/dev.stamp lock/lint.txt
	$(PIP) --require-hashes -r lock/lint.txt
	touch $@

$(VENV)/notebooks.stamp: $(VENV)/run.stamp lock/notebooks.txt
	$(PIP) --require-hashes -r lock/notebooks.txt
	touch $@

# Other libraries and their dependencies live apart, so that they cannot change what is tested.
$(VENV)-peers/stamp: lock/peers.txt pyproject.toml
	$(PYTHON) -m venv $(VENV)-peers
	$(VENV)-peers/bin/python -m pip --disable-pip-version-check install --quiet --require-hashes -r lock/peers.txt
	$(VENV)-peers/bin/python -m pip --disable-pip-version-check install --quiet --no-deps --no-build-isolation --editable .
	touch $@

# For developers, after changing dependencies in pyproject.toml; needs uv. Hashes, and no URL.
COMPILE := $(UV) pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header --no-annotate \
	--no-emit-index-url --no-emit-find-links pyproject.toml -
lock:
	echo "setuptools>=77" | $(COMPILE) --output-file lock/run.txt
	echo "setuptools>=77" | $(COMPILE) --constraint lock/run.txt --extra test --output-file lock/test.txt
	echo "setuptools>=77" | $(COMPILE) --constraint lock/run.txt --extra test --extra lint --output-file lock/lint.txt
	echo "setuptools>=77" | $(COMPILE) --constraint lock/run.txt --extra notebooks --output-file lock/notebooks.txt
	echo "setuptools>=77" | $(COMPILE) --constraint lock/run.txt --extra test --extra peers --output-file lock/peers.txt

clean:
	rm -rf $(VENV) $(VENV)-peers report build *.egg-info
