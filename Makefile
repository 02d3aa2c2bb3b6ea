PYTHON ?= python3
NOW := $(shell date +%Y-%m-%d_%H-%M-%S)
NAME ?= $@-$(NOW)
SEEDS ?= 0,1,2
ARGS ?=
BIN := .venv/bin
LOSSES := gan,lsgan,wgan-gp,wgan-lp,dragan,hinge
# One process more than cores, since many tests wait: for signals, for time-outs, for processes they have started.
PYTEST = $(BIN)/python -m pytest -n $$($(PYTHON) -c 'import os; print(min(8, (os.cpu_count() or 1) + 1))') --dist loadfile --no-loadscope-reorder

.DEFAULT_GOAL := help
.PHONY: help setup compare smoke tune benchmark search conformance soak bench gpu cluster-test check test lint browser tables clean

help: ## list these targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  make \1|\2/' | column -t -s '|'

setup: .venv/ready ## create .venv with everything that runs need, and the command .venv/bin/ganbench

compare: .venv/ready ## train six methods at three seeds and write one report (SEEDS=0,1,…  NAME=…  ARGS=overrides)
	@status=0; $(BIN)/python -m ganbench -m loss=$(LOSSES) seed=$(SEEDS) name=$(NAME) $(ARGS) || status=$$?; \
	[ -d outputs/sweep/$(NAME) ] && $(BIN)/python -m ganbench.report outputs/sweep/$(NAME) || exit $$(( status ? status : 1 )); \
	exit $$status

smoke: .venv/ready ## one-minute end-to-end check
	@$(MAKE) --no-print-directory compare NAME=$(NAME) SEEDS=0 ARGS="experiment=smoke $(ARGS)"

benchmark: .venv/ready ## train six methods at ten seeds on ring, grid and mnist5k (half an hour on two cores)
	@status=0; for data in "dataset=ring" "dataset=grid" "dataset=mnist5k"; do \
	  $(BIN)/python -m ganbench experiment=benchmark $$data name=$(NAME) $(ARGS) || status=$$?; \
	done; $(BIN)/python -m ganbench.report outputs/benchmark/$(NAME) || exit $$?; exit $$status

tune: .venv/ready ## compare each method at the best of 16 random settings (half an hour or more; the same NAME=… resumes)
	@$(MAKE) --no-print-directory compare NAME=$(NAME) ARGS="protocol=tuned $(ARGS)"

search: .venv/ready ## repeat the three searches that chose the setting of protocol=equal (an hour)
	set -e; for round in search search-fine search-final; do \
	  $(BIN)/python -m ganbench experiment=$$round name=$$round-$(NOW) $(ARGS); \
	  $(BIN)/python -m ganbench.report.search outputs/sweep/$$round-$(NOW); \
	done

conformance: .venv/ready ## check every loss, penalty, critic and metric against known answers (ARGS="loss=… penalty=…")
	$(BIN)/python -m ganbench.conformance $(ARGS)

soak: .venv/tested ## crash test: 1,000 kills, 50 lock races (slow; ARGS="--kills 100")
	PYTHONPATH=. $(BIN)/python tests/crash_soak.py $(ARGS)

bench: .venv/ready ## benchmark step time, memory, start-up and sweeps
	$(BIN)/python -m ganbench.bench $(ARGS)

gpu: .venv/tested ## run the tests that need a GPU, and measure it into outputs/reference/gpu.json (8 minutes)
	$(BIN)/python -m pytest -m gpu tests/test_gpu.py
	$(BIN)/python -m ganbench.bench --part gpu > outputs/reference/gpu.json

cluster-test: .venv/tested ## run sweeps on a real Slurm and a real Ray on this machine (root on Debian; 15 minutes)
	command -v slurmd >/dev/null || { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq slurm-wlm munge >/dev/null; }
	$(BIN)/python -m pip install -q -e '.[ray]'
	$(BIN)/python -m pytest -m cluster tests/test_slurm.py tests/test_ray.py

check: lint ## lint, check types and run the quick tests (two minutes on two cores)
	$(PYTEST) -m "not slow" $(ARGS)

test: lint ## lint, check types and run all tests (12 minutes on two cores; ARGS="-k word")
	$(PYTEST) $(ARGS)

lint: .venv/tested ## check style with ruff and types with mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

browser: ## install Chromium for the tests of the report page, unless there is one
	@for name in chromium chromium-browser google-chrome google-chrome-stable; do \
	  command -v $$name >/dev/null && exit 0; \
	done; \
	if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	  apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq chromium >/dev/null; \
	else \
	  $(MAKE) --no-print-directory .venv/tested && $(BIN)/python -m playwright install chromium; \
	fi

tables: .venv/ready ## rewrite the generated tables of all READMEs
	PYTHONPATH=. $(BIN)/python tests/tables.py

clean: ## remove .venv and caches; outputs stay
	rm -rf .venv .pytest_cache .ruff_cache .mypy_cache build *.egg-info

.venv/ready: requirements.txt pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install -q -e .
	@touch $@

.venv/tested: .venv/ready
	$(BIN)/python -m pip install -q $$($(BIN)/python -c 'import tomllib; print(*tomllib.load(open("pyproject.toml", "rb"))["project"]["optional-dependencies"]["test"])')
	@touch $@
