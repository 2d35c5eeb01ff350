# One word a job; `make help` lists them. Everything is set up in .venv; nothing is installed outside this folder.

PYTHON ?= $(shell for each in python3.11 python3.12 python3.13 python3 python; do \
	"$$each" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && { command -v "$$each"; break; }; done)
VENV := .venv
RUN := $(VENV)/bin/python
PYTEST := $(RUN) -m pytest
# pip gives up quickly where there is no network, so that the line that says so comes soon.
PIP := $(RUN) -m pip --disable-pip-version-check --retries 1 --timeout 30 -qq
# What fault tests repeat, as a share of their full size; `make soak` runs them at 1.
export RESILIENT_SCALE ?= 0.02
# The tests start dozens of Pythons, none of which needs to compile what the one before it compiled.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help demo test check lint types units faces docs doc-tests wheel lowest soak balancer page suites mutants bench tour generate clean

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 20

# ---------------------------------------------------------------------------------------------------- environments

$(VENV)/bin/python:
	@test -n "$(PYTHON)" || { echo "resilient needs Python 3.11 or later, and none was found; name one: make PYTHON=/path/to/python3.11"; exit 2; }
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { echo "resilient needs Python 3.11 or later, and $(PYTHON) is $$("$(PYTHON)" --version 2>/dev/null || echo not there); name another: make PYTHON=/path/to/python3.11"; exit 2; }
	@test -w . || { echo "nothing can be written into this folder, where $(VENV) belongs; clone the repository to one of your own"; exit 2; }
	@"$(PYTHON)" -m venv $(VENV) || { rm -rf $(VENV); echo "this Python cannot make virtual environments; on Debian: apt install python3-venv"; exit 2; }

$(VENV)/.pip: | $(VENV)/bin/python
	@$(PIP) install --upgrade 'pip>=25.1' 2>$(VENV)/pip.log || { tail -n 1 $(VENV)/pip.log; echo "the packages could not be downloaded; is there a network? Nothing was started."; exit 2; }
	@touch $@

$(VENV)/.demo: pyproject.toml $(VENV)/.pip
	@echo "setting up $(VENV) (once)"
	@$(PIP) install -e '.[all]' --group demo 2>$(VENV)/pip.log || { tail -n 1 $(VENV)/pip.log; echo "the packages could not be downloaded; is there a network? Nothing was started."; exit 2; }
	@touch $@

$(VENV)/.dev: pyproject.toml $(VENV)/.pip
	@echo "setting up $(VENV) for development (once)"
	@$(PIP) install -e '.[all]' --group dev 2>$(VENV)/pip.log || { tail -n 1 $(VENV)/pip.log; echo "the packages could not be downloaded; is there a network? Nothing was started."; exit 2; }
	@touch $@ $(VENV)/.demo

# ------------------------------------------------------------------------------------------------------- for users

demo: $(VENV)/.demo ## the tour: an application that keeps answering while its parts fail; SERVE=1 leaves it running, PORT=n chooses its port
	@$(RUN) -m examples.imagery.tour $(ARGS)

test: $(VENV)/.dev ## the whole suite, with whatever servers this machine has
	@$(PYTEST) -n 4 --dist loadscope --no-loadscope-reorder $(ARGS)

# -------------------------------------------------------------------------------------------------- for developers

check: lint types test faces doc-tests docs wheel lowest ## all that CI runs

lint: $(VENV)/.dev ## ruff, floors, generated files, test docstrings, promises
	@$(VENV)/bin/ruff check .
	@$(VENV)/bin/ruff format --check .
	@$(VENV)/bin/lint-imports
	@$(RUN) tools/unasync.py --check
	@$(RUN) tools/readme.py --check
	@$(RUN) tools/house.py

types: $(VENV)/.dev ## mypy --strict and pyright
	@$(VENV)/bin/mypy
	@$(VENV)/bin/pyright

units: $(VENV)/.dev ## the unit tests alone
	@$(PYTEST) tests/unit -n 2 $(ARGS)

faces: $(VENV)/.dev ## a short selection of other projects' tests of backends, against ours
	@$(PYTEST) tests/suites/test_faces.py -k short -q $(ARGS)

doc-tests: $(VENV)/.dev ## every code block of README and docs, every example of a docstring
	@$(PYTEST) tests/docs $(ARGS)
	@$(PYTEST) --doctest-modules resilient -q

docs: $(VENV)/.dev ## the site, into site/; warnings are errors
	@$(RUN) tools/promises.py
	@NO_MKDOCS_2_WARNING=1 $(VENV)/bin/mkdocs build --strict --quiet

wheel: $(VENV)/.dev ## build the wheel, install it in a clean environment and try it there
	@$(RUN) tools/try_wheel.py

lowest: $(VENV)/.dev ## the unit tests against the lowest supported version of each dependency
	@$(RUN) tools/lowest.py

generate: $(VENV)/.dev ## write the generated sync files anew
	@$(RUN) tools/unasync.py

# ------------------------------------------------------------- full size; their output is kept under docs/evidence/

soak: $(VENV)/.dev ## the fault tests at full size
	@$(RUN) tools/evidence.py soak RESILIENT_SCALE=1 -- $(PYTEST) tests/servers tests/unit -m scaled -rA -q --durations 10 --timeout 1800

balancer: $(VENV)/.dev ## health behind a real HAProxy, its figures and its costs, with the tables of its pages
	@$(RUN) tools/evidence.py balancer RESILIENT_SCALE=1 RESILIENT_TABLES=docs/evidence -- $(PYTEST) -rA -q --timeout 1800 \
		tests/servers/test_health_haproxy.py tests/servers/test_health_numbers.py tests/servers/test_health_checks.py tests/servers/test_health_together.py
	@$(RUN) tools/readme.py

page: $(VENV)/.dev ## the picture of the health page, taken with a headless Chromium that has nothing to say against it
	@$(RUN) tools/health_page.py $(ARGS)

suites: $(VENV)/.dev ## other projects' test suites against our classes
	@failed=0; for each in tests/suites/test_*.py; do name=$$(basename $$each .py); \
		$(RUN) tools/evidence.py "suites-$${name#test_}" -- $(PYTEST) $$each -q -rA --timeout 3600 || failed=1; done; exit $$failed

mutants: $(VENV)/.dev ## mutation testing of the pure cores
	@$(PIP) install -q --group mutants
	@failed=0; for room in $(or $(ROOMS),$$($(RUN) tools/mutants.py --rooms)); do \
		$(RUN) tools/evidence.py "mutants-$$room" -- $(RUN) tools/mutants.py $$room || failed=1; done; exit $$failed

tour: $(VENV)/.demo ## the tour, with its table written into the README
	@$(RUN) tools/evidence.py tour -- $(RUN) -m examples.imagery.tour --table docs/evidence/tour-table.md
	@$(RUN) tools/readme.py

bench: $(VENV)/.dev ## ratios to peers, measured in one run
	@$(PIP) install --group bench
	@for each in benchmarks/[a-z]*.py; do $(RUN) tools/evidence.py "bench-$$(basename $$each .py)" -- $(RUN) $$each || exit 1; done
	@$(RUN) tools/readme.py

clean: ## remove the environment and everything that was built
	@rm -rf $(VENV) .venv-* site dist build .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache mutants .suites
