# `make demo` and `make test` need Python 3.11 or newer, git and make; they set up .venv themselves.

bin = .venv/bin
JOBS = 2

help:
	@echo "make demo    set up, train on handwritten digits, draw some and score them (minutes)"
	@echo "make page    set up, and open a page in the browser to draw and compare with that model"
	@echo "make test    set up, lint, and run the tests, two at a time (JOBS=2)"
	@echo "make lint    the checks without the tests: style, types, floors"
	@echo "make format  let ruff mend what it can"
	@echo "make site    set up, and build the pages of docs/ into build/site"
	@echo "make clean   remove caches and builds; runs/ and .venv stay"

demo: core
	$(bin)/diffussm train digits --out runs/digits
	$(bin)/python examples/digits.py runs/digits

page:
	@sh scripts/setup.sh demo
	$(bin)/diffussm demo

site:
	@sh scripts/setup.sh docs
	$(bin)/mkdocs build -q

test: lint
	$(bin)/python -m pytest -n $(JOBS)

lint: dev
	$(bin)/ruff check
	$(bin)/ruff format --check
	$(bin)/lint-imports
	$(bin)/pyright

format: dev
	$(bin)/ruff check --fix
	$(bin)/ruff format

core:
	@sh scripts/setup.sh

dev:
	@sh scripts/setup.sh dev

clean:
	rm -rf build dist .pytest_cache .ruff_cache .import_linter_cache .hypothesis
	find src tests -name __pycache__ -type d -exec rm -rf {} +

.PHONY: help demo page site test lint format core dev clean
