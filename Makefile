# Two commands do everything: `make demo` shows it, `make test` proves it. Both set themselves up.

VENV := .venv
PYTHON ?= python3
BIOME := npx --yes @biomejs/biome@2.6.8

.DEFAULT_GOAL := help
.PHONY: help demo test check format venv browser clean

help:  ## this list
	@sed -n 's/^\([a-z]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 10

demo: venv  ## the whole house on this machine, no account needed; MEDIA=~/Videos shows your own films
	@exec $(VENV)/bin/python demo.py --media "$(MEDIA)" $(if $(PORT),--port $(PORT)) $(if $(RTT),--rtt $(RTT)) $(if $(RATE),--rate $(RATE))

test: venv browser  ## every test, with a real browser; TESTS=tests/test_ranges.py runs some of them
	$(VENV)/bin/python -m pytest $(TESTS)

check: venv  ## format, lint and types, changing nothing
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/ruff check .
	$(VENV)/bin/mypy .
	$(VENV)/bin/djlint --check --lint --quiet templates
	@if command -v npx >/dev/null; then $(BIOME) ci .; else echo "check: no npx here, so static/ was not linted"; fi

format: venv  ## put everything in shape
	$(VENV)/bin/ruff format .
	$(VENV)/bin/ruff check --fix .
	-$(VENV)/bin/djlint --reformat --quiet templates
	$(BIOME) check --write .

venv: $(VENV)/.installed

$(VENV)/.installed: requirements.txt requirements-dev.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=python3.12 …")'
	@echo "Installing into $(VENV) ..."
	@$(PYTHON) -m venv $(VENV)
	@$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check -r requirements-dev.txt
	@touch $@

# The browser tests drive the system's own Chromium; Playwright's private build is not needed.
browser:
	@command -v chromium >/dev/null || { \
	  if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	    apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq chromium >/dev/null; \
	  else \
	    echo "test: Chromium is missing; install it (Debian: sudo apt install chromium)" >&2; exit 1; \
	  fi; }

clean:  ## remove what was made: the environment, the demo's films, caches
	rm -rf $(VENV) .demo .pytest_cache .mypy_cache .ruff_cache .hypothesis
