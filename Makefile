# Two commands for a newcomer: make course, make test. `make help` lists the rest.
# Parameters: LESSON=01 PROFILE=smoke DATASET=mnist SEED=3, and PYTHON=python3.12 for another interpreter.

PYTHON  ?= python3
PROFILE ?= cpu
JOBS    ?= 2
LESSON  ?=
DATASET ?=
SEED    ?=
FILE    ?= data/sweeps/02_seeds.yml

BIN   := .venv/bin
SMOKE := --nbval-lax --nbval-cell-timeout=300 --nbval-kernel-startup-timeout=120 --nbval-current-env

.DEFAULT_GOAL := help
.PHONY: help course test lint unit smoke sweep lab bench outputs train results site clean

help:  ## show this list
	@echo "make course    the whole course, about a quarter of an hour; then open build/index.html"
	@echo "make test      lint, unit tests, every lesson in its smoke profile"
	@echo
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/\1|\2/p' $(MAKEFILE_LIST) | awk -F'|' '{ printf "  %-10s %s\n", $$1, $$2 }'
	@echo
	@echo "Choose with LESSON=01 PROFILE=smoke|cpu|gpu DATASET=mnist SEED=3, as in: make course LESSON=01 DATASET=mnist"

course: .venv/.installed  ## run the lessons, make pages and a summary in build/
	$(BIN)/survey run $(LESSON) --profile $(PROFILE) $(if $(DATASET),--dataset $(DATASET)) $(if $(SEED),-p seed $(SEED))

test: lint unit smoke  ## everything that has to hold before a change is merged

lint: .venv/.installed-test  ## ruff: style and formatting; mypy: the types of core and nets
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

unit: .venv/.installed-test  ## the unit tests
	OMP_NUM_THREADS=1 $(BIN)/pytest -q -n $(JOBS) tests --ignore=tests/benchmarks

smoke: .venv/.installed-test  ## every lesson, small, its assertions checked
	OMP_NUM_THREADS=1 SURVEY_PROFILE=smoke $(BIN)/pytest -q $(SMOKE) -n $(JOBS) --dist loadfile notebooks/

sweep: .venv/.installed  ## a lesson over a grid of parameters: make sweep FILE=data/sweeps/02_seeds.yml
	$(BIN)/survey sweep $(FILE)

lab: .venv/.installed  ## solve the first lesson in JupyterLab, or LESSON
	$(BIN)/survey lab $(LESSON)

bench: .venv/.installed-test  ## measured speed and quality, as ratios; some of it: make bench BENCH=speed
	$(BIN)/python -m tests.benchmarks $(BENCH)

outputs: .venv/.installed  ## for authors: run lessons and renew the outputs they carry
	$(BIN)/survey outputs $(LESSON)

train: .venv/.installed  ## make a checkpoint from scratch: make train NAME=glyphs_base
	$(BIN)/survey train $(NAME)

results: .venv/.installed  ## show the records of what was measured
	$(BIN)/survey results

site: .venv/.installed-site  ## lessons, guides and reference as a site with search, in build/site/html
	$(BIN)/python -m survey_lib.course.publishing.site build/site $(REPOSITORY)

clean:  ## remove build/ and caches, keep .venv and data
	rm -rf build .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -not -path './.venv/*' -prune -exec rm -rf {} +

.venv/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "The course needs Python 3.11 or later, and $(PYTHON) is older or missing: name another, as in make PYTHON=python3.12 course"; exit 1; }
	$(PYTHON) -m venv .venv

.venv/.installed: pyproject.toml | .venv/bin/python
	$(BIN)/python -m pip install -q -e .
	@touch $@

.venv/.installed-test: pyproject.toml | .venv/bin/python
	$(BIN)/python -m pip install -q -e '.[test]'
	@touch .venv/.installed $@

.venv/.installed-site: pyproject.toml | .venv/bin/python
	$(BIN)/python -m pip install -q -e '.[site]'
	@touch .venv/.installed $@
