# Stillhouse. `make demo` and `make test` are each enough on a fresh Linux x86-64 machine with
# Python 3.11 or 3.12: they install into .venv first, and install nothing the second time.

PYTHON ?=
MACHINE ?=
export PYTHON MACHINE

.PHONY: help install demo test lint models lock clean
.DEFAULT_GOAL := help

help:  ## show this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-8s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

# Any Python can run the set-up; the set-up then chooses the one that .venv is made with.
install:  ## make .venv from the lock for this machine (PYTHON=..., MACHINE=cpu|gpu)
	@for p in python3 python3.12 python3.11 $(PYTHON); do \
	  if "$$p" -c '' 2>/dev/null; then exec "$$p" scripts/install.py; fi; \
	done; \
	echo "Set-up stopped. No Python here; Stillhouse needs 3.11 or 3.12. As root: apt-get install python3-venv" >&2; \
	exit 1

demo: install  ## run a whole night on the invented shop
	@.venv/bin/stillhouse demo $(ARGS)

test: install  ## run all the tests (ARGS=... for pytest)
	@.venv/bin/python -m pytest $(ARGS)

lint: install  ## ruff and mypy
	@.venv/bin/ruff check .
	@.venv/bin/ruff format --check .
	@.venv/bin/mypy

models: install  ## train the two tiny models again (about 45 minutes)
	@.venv/bin/python -m demo.models $(ARGS)

lock: install  ## resolve requirements/*.in into the two locks again (network; see scripts/lock.py)
	@.venv/bin/python scripts/lock.py

clean:  ## remove .venv and the caches; stillhouse-data (nights, labels, verdicts) stays
	rm -rf .venv build *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +
	@if [ -d stillhouse-data ]; then echo "Kept stillhouse-data/: it holds labels and what people said of them."; fi
