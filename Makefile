# Every target says what it does and how long it took. `make` alone lists them.
.DEFAULT_GOAL := help
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.ONESHELL:
.SILENT:

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
MODEL  := predictor/models/shapes
# The demo model is so small that a second thread gains little, and loses much where another program wants its core.
DEMO   := $(BIN)/sdzero demo --model $(MODEL) --threads 1

# $(call task,what it does): prints it now, and the seconds it took when the recipe ends, however it ends.
task = printf '\033[1m▸ %s\033[0m\n' '$(1)'; trap 's=$$?; printf "\033[1m▸ %s: %ss\033[0m\n" "$$([ $$s = 0 ] && echo done || echo failed)" "$$SECONDS"' EXIT

.PHONY: help install parts demo serve test lint types imports unit chaos images e2e e2e-kind format constraints clean
help: ## list the targets
	grep -hE '^[a-z0-9-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z0-9-]+):.*## (.*)/  \1|\2/' | column -t -s '|'

$(VENV)/.installed: pyproject.toml constraints.txt
	$(call task,installing into $(VENV) what constraints.txt pins)
	[ -x $(BIN)/python ] || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt uv
	$(BIN)/uv pip install --quiet --python $(BIN)/python --compile-bytecode --constraint constraints.txt --editable '.[edge,server,engine,telemetry,watch,loadtest,lab,dev]'
	touch $@

install: $(VENV)/.installed ## install everything into .venv

# Programs that the tests run for real. Without root, or without apt, it says what is missing; those tests are skipped.
parts: ## install the real parts of the tests: PostgreSQL, Redis, Chromium
	$(call task,looking for the real parts of the tests)
	tests/parts/install

demo: install ## start edge and predictor, make pictures, show them and the cold start, stop
	$(call task,making pictures with the real edge and predictor and the demo model)
	$(DEMO) --out out/demo

serve: install ## serve the demo model and the web page on this machine until Ctrl-C
	$(DEMO) --serve

test: lint types imports unit ## everything that CI runs

lint: install ## style
	$(call task,checking style)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: install ## types
	$(call task,checking types)
	$(BIN)/mypy

imports: install ## rooms do not import each other
	$(call task,checking that no room imports another)
	$(BIN)/lint-imports

unit: install parts ## tests
	$(call task,running the tests; those of the edge beside the others)
	mkdir -p out
	$(BIN)/python -m pytest -p no:cacheprovider tests/edge >out/edge-tests.log 2>&1 & edge=$$!
	$(BIN)/python -m pytest --ignore tests/edge && others=0 || others=1
	wait $$edge && failed=$$others || failed=1
	cat out/edge-tests.log
	exit $$failed

chaos: install parts ## kill everything at random under load for five minutes, then check the books
	$(call task,killing edges, predictor, engine, Redis, PostgreSQL and the store at random)
	$(BIN)/python -m tests.edge.chaos --seconds 300 --seed 1

# Each target of the Dockerfile; `docs/images.md` tells of the arguments.
BUILDER ?= docker
BASE    ?= python:3.12-slim-bookworm
PREFIX  ?= sdzero/
TAG     ?= $(shell sed -n 's/^__version__ = "\(.*\)"/\1/p' predictor/__init__.py)
DEVICE  ?= cpu
# $(call image,target,name:tag)
image = $(BUILDER) $(if $(filter buildah,$(BUILDER)),bud --layers,build) --file Dockerfile --target $(1) --tag $(PREFIX)$(2) --build-arg BASE=$(BASE) --build-arg DEVICE=$(DEVICE) --build-arg VERSION=$(TAG) --build-arg REVISION=$$(git rev-parse HEAD) $(IMAGE_ARGS) .

images: ## build the three images: BUILDER=docker|buildah BASE= PREFIX= TAG= DEVICE=cpu|cuda
	$(call task,building images with $(BUILDER))
	$(call image,edge,edge:$(TAG))
	$(call image,predictor,predictor:$(TAG)-$(DEVICE))
	$(call image,predictor-eager,predictor-eager:$(TAG)-$(DEVICE))

e2e: install ## install the chart on the cluster of KUBECONFIG and prove the promises there (docs/e2e.md)
	$(call task,proving an installation on a real cluster)
	$(BIN)/python -m pytest -p no:cacheprovider tests/e2e

e2e-kind: install ## the same on a kind cluster made for it; needs Docker and kind
	$(call task,making a kind cluster and proving an installation on it)
	tests/e2e/kind/run

format: install ## rewrite the code in the project's style
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

constraints: ## resolve the newest versions that fit, and pin them
	$(call task,pinning every dependency for Python 3.11 to 3.13)
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --all-extras --no-header --no-annotate --no-emit-index-url pyproject.toml <(printf '%s\n' uv cyclonedx-bom) --output-file constraints.txt --upgrade

clean: ## remove what the other targets made
	rm -rf $(VENV) out .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache *.egg-info
