PYTHON ?= python3
NOW := $(shell date +%Y-%m-%d_%H-%M-%S)
NAME ?= $@-$(NOW)
SEEDS ?= 0,1,2
ARGS ?=
BIN := .venv/bin
SIX := gan,lsgan,wgan-gp,wgan-lp,dragan,hinge

.DEFAULT_GOAL := help
.PHONY: help setup compare smoke tune benchmark search conformance soak bench test lint browser clean

help: ## this list
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## (.*)/  make \1|\2/' | column -t -s '|'

setup: .venv/ready ## a virtual environment in .venv with all that is needed to run

compare: .venv/ready ## set-up and the main job: six losses, three seeds, one report (SEEDS=0,1,…  ARGS=overrides)
	@status=0; $(BIN)/python -m ganbench -m loss=$(SIX) seed=$(SEEDS) name=$(NAME) $(ARGS) || status=$$?; \
	[ -d outputs/sweep/$(NAME) ] && $(BIN)/python -m ganbench.report outputs/sweep/$(NAME) || exit $$(( status ? status : 1 )); \
	exit $$status

smoke: .venv/ready ## the same in a minute, to see it move
	@$(MAKE) --no-print-directory compare SEEDS=0 ARGS="experiment=smoke $(ARGS)"

benchmark: .venv/ready ## six losses, ten seeds, on ring, grid and mnist5k, and their reports (half an hour on two cores)
	@status=0; for data in "dataset=ring" "dataset=grid" "dataset=mnist5k protocol.images=25600"; do \
	  $(BIN)/python -m ganbench experiment=benchmark $$data name=$(NAME) $(ARGS) || status=$$?; \
	done; $(BIN)/python -m ganbench.report outputs/benchmark/$(NAME) || exit $$?; exit $$status

tune: .venv/ready ## the same with each method's best of 16 random trials (90 minutes; the same NAME=… goes on)
	@$(MAKE) --no-print-directory compare ARGS="protocol=tuned $(ARGS)"

search: .venv/ready ## the three rounds that chose the shared setting of protocol=equal (an hour)
	set -e; for round in search search-fine search-final; do \
	  $(BIN)/python -m ganbench experiment=$$round name=$$round-$(NOW) $(ARGS); \
	  $(BIN)/python -m ganbench.report.search outputs/sweep/$$round-$(NOW); \
	done

conformance: .venv/ready ## every loss, penalty, critic and metric against known answers (ARGS="loss=… penalty=…")
	$(BIN)/python -m ganbench.conformance $(ARGS)

soak: .venv/tested ## 1,000 kills of runs, and 50 contests for one folder: all must end bit-equal (ARGS="--kills 100")
	PYTHONPATH=. $(BIN)/python tests/crash_soak.py $(ARGS)

bench: .venv/ready ## what things cost, against their usual alternatives
	$(BIN)/python -m ganbench.bench $(ARGS)

test: .venv/tested lint browser ## set-up and the tests
	$(BIN)/python -m pytest $(ARGS)

lint: .venv/tested ## ruff, both its linter and its formatter
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

# The report's page is opened in a real browser. Where Debian's package can be installed, it is.
browser:
	@for b in chromium chromium-browser google-chrome google-chrome-stable; do command -v $$b >/dev/null && exit 0; done; \
	if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	  apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq chromium >/dev/null; \
	else echo "The page's test needs Chromium or Chrome: install one (such as 'sudo apt-get install chromium')." >&2; exit 1; fi

clean: ## remove .venv and caches; outputs stay
	rm -rf .venv .pytest_cache .ruff_cache build *.egg-info

.venv/ready: requirements.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install -q -r requirements.txt
	@touch $@

.venv/tested: .venv/ready pyproject.toml
	$(BIN)/python -m pip install -q $$($(BIN)/python -c 'import tomllib; print(*tomllib.load(open("pyproject.toml", "rb"))["project"]["optional-dependencies"]["test"])')
	@touch $@
