# Two commands do everything: `make demo` shows it, `make test` proves it. Both set themselves up.

VENV := .venv
PYTHON ?= python3
BIOME := npx --yes @biomejs/biome@2.6.8
TSC := npx --yes -p typescript@7.0.2 tsc
LIGHTHOUSE := npx --yes lighthouse@13.5.0

.DEFAULT_GOAL := help
.PHONY: help demo test fuzz check format lock audit bench soak players screenshots recording lighthouse venv \
  browsers programs servers clean

help:  ## this list
	@sed -n 's/^\([a-z]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 10

demo: venv  ## the whole house on this machine, no account needed; MEDIA=~/Videos shows your own films
	@exec $(VENV)/bin/python demo.py --media "$(MEDIA)" $(if $(PORT),--port $(PORT)) $(if $(RTT),--rtt $(RTT)) $(if $(RATE),--rate $(RATE))

# Three at a time, each file as a whole, since most tests wait for one thing or another; in the order
# of tests/conftest.py, where those that take long come first.
test: venv browsers programs servers  ## every test, with real browsers; TESTS=tests/test_ranges.py runs some of them
	$(VENV)/bin/python -m pytest --numprocesses 3 --dist loadfile \
	  --no-loadscope-reorder $(TESTS)

SECONDS := 600

fuzz: venv  ## nonsense into every parser and both services, for SECONDS=600; what it learns is kept in .fuzz
	@PYTHONPATH=tests $(VENV)/bin/python -m fuzz --seconds $(SECONDS)

check: venv  ## format, lint and types, changing nothing
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/ruff check .
	$(VENV)/bin/mypy .
	$(VENV)/bin/djlint --check --lint --quiet templates
	@if command -v npx >/dev/null; then $(BIOME) ci . && $(TSC) -p jsconfig.json; \
	else echo "check: there is no npx here, so static/ was not looked at"; fi

format: venv  ## put everything in shape
	$(VENV)/bin/ruff format .
	$(VENV)/bin/ruff check --fix .
	-$(VENV)/bin/djlint --reformat --quiet templates
	$(BIOME) check --write .

venv: $(VENV)/.installed

$(VENV)/.installed: requirements-dev.lock
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=python3.12 …")'
	@echo "Installing into $(VENV) ..."
	@$(PYTHON) -m venv $(VENV)
	@$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes -r $<
	@touch $@

# For every platform and Python at once, so that the locks are the same whoever makes them.
COMPILE := $(VENV)/bin/uv pip compile --quiet --upgrade --universal --python-version 3.11 \
  --generate-hashes --custom-compile-command "make lock"

lock: venv  ## renew requirements*.lock: after a change of requirements*.txt, and now and then
	$(COMPILE) requirements.txt -o requirements.lock
	$(COMPILE) requirements-dev.txt -o requirements-dev.lock

audit: venv  ## known vulnerabilities of all that is locked, licences of all that ships
	$(VENV)/bin/python tools/audit.py

# The worker is measured in an environment of its own: the tests' has packages that cost it memory.
bench: venv browsers $(VENV)-worker/.installed  ## measure every promise; results in benchmarks/results
	$(VENV)/bin/python benchmarks/gallery_index.py
	$(VENV)/bin/python benchmarks/gallery_doors.py
	$(VENV)/bin/python -m benchmarks.streaming --worker-python $(VENV)-worker/bin/python

soak: venv $(VENV)-worker/.installed  ## 200 viewers for 8 and 10 minutes, then 11,000 strangers; MINUTES=2 WARM_UP=1
	$(VENV)/bin/python -m benchmarks.soak --minutes $(or $(MINUTES),10) --warm-up-minutes $(or $(WARM_UP),8) \
	  --worker-python $(VENV)-worker/bin/python --results benchmarks/results

$(VENV)-worker/.installed: requirements.txt
	@$(PYTHON) -m venv $(VENV)-worker
	@$(VENV)-worker/bin/python -m pip install --quiet --disable-pip-version-check -r requirements.txt
	@touch $@

screenshots: venv browsers  ## take the pictures in docs/images anew
	$(VENV)/bin/python tools/screenshots.py

recording: venv browsers  ## take the README's recording anew: a film starts and is sought in
	$(VENV)/bin/python -m tools.recording

lighthouse:  ## judge the gallery of a running `make demo` as a phone sees it
	CHROME_PATH=$$(command -v chromium) $(LIGHTHOUSE) http://localhost:8080/ --quiet \
	  --chrome-flags="--headless=new --no-sandbox" --output=html --output-path=.demo/lighthouse.html \
	  --only-categories=performance,accessibility,best-practices

players: venv programs  ## play and fetch by share links with everything; results in docs/players.md
	@$(call need,mpv:mpv ffmpeg:ffmpeg,--no-install-recommends)
	$(VENV)/bin/python tools/players.py

# The browser tests drive the system's own browsers; Playwright's private builds are not needed.
browsers:
	@$(call need,chromium:chromium firefox-esr:firefox-esr)

# What people play, fetch and mount films with.
programs:
	@$(call need,cvlc:vlc-bin+vlc-plugin-base aria2c:aria2 wget:wget curl:curl rclone:rclone \
	  cadaver:cadaver fusermount3:fuse3,--no-install-recommends)

# What deploy/ is written for. Where systemd runs, Debian starts a web server when it is installed;
# that is for the owner of the machine to decide.
servers:
	@if [ -d /run/systemd/system ]; then $(call find_missing,nginx:nginx caddy:caddy); else missing=""; fi; \
	if [ -n "$$missing" ]; then \
	  echo "make: missing:$$missing (Debian: sudo apt install$$missing; that also starts them:" \
	    "sudo systemctl disable --now$$missing)" >&2; exit 1; \
	fi
	@$(call need,nginx:nginx caddy:caddy systemd-analyze:systemd)

# $(call need,program:package+package …,flags of apt) installs what is missing, or says what is.
# Debian keeps servers where only root looks for commands.
find_missing = missing=""; for each in $(1); do \
	  PATH="$$PATH:/usr/sbin" command -v "$${each%%:*}" >/dev/null || \
	    missing="$$missing $$(echo "$${each\#*:}" | tr + ' ')"; \
	done
need = $(call find_missing,$(1)); \
	if [ -n "$$missing" ]; then \
	  if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	    echo "Installing$$missing ..."; \
	    apt-get update -qq && \
	    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq $(2) $$missing >/dev/null; \
	  else \
	    echo "make: missing:$$missing (Debian: sudo apt install$$missing)" >&2; exit 1; \
	  fi; \
	fi

clean:  ## remove what was made: the environment, the demo's films, caches
	rm -rf $(VENV) $(VENV)-worker .demo .fuzz .pytest_cache .mypy_cache .ruff_cache .hypothesis
