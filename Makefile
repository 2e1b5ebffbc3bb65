VENV := .venv
PYTHON ?= python3

.PHONY: demo venv

demo: venv  ## the whole house on this machine, no account needed; MEDIA=~/Videos shows your own films
	@exec $(VENV)/bin/python demo.py --media "$(MEDIA)" $(if $(PORT),--port $(PORT)) $(if $(RTT),--rtt $(RTT)) $(if $(RATE),--rate $(RATE))

venv: $(VENV)/.installed

$(VENV)/.installed: requirements.txt requirements-dev.txt
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check -r requirements-dev.txt
	@touch $@
