# The list of tasks. Every target sets up .venv by itself and installs only when
# pyproject.toml or constraints.txt changed.

VENV := .venv
BIN := $(VENV)/bin
PYTHON ?= $(shell command -v python3.11 || command -v python3)
INSTALLED := $(VENV)/.installed
RUN ?= runs/demo
JOBS ?= 2

.PHONY: setup demo test check format bench bench-regimes soak app docs images gallery clean

setup: $(INSTALLED)

$(INSTALLED): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "looplens needs Python 3.11 or newer: make PYTHON=/path/to/python3.11 setup"; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $(INSTALLED)

demo: setup  ## record a trained looped model, analyse it, write a report
	$(BIN)/looplens demo --out $(RUN) --overwrite

test: setup  ## the whole test suite, with a headless browser
	./.ci/browser
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n $(JOBS) --dist loadfile

check: setup  ## format, lint, types, layering
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: setup
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: setup  ## measurements, as ratios taken side by side
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[bench]'
	$(BIN)/python -m benchmarks

bench-regimes: setup  ## how often the regimes are right, against other rules; writes docs/analysis/calibration.md
	$(BIN)/python -m benchmarks.regimes

soak: setup  ## kill recordings at random moments, 200 times; every one must end with the same bytes
	cd tests/recording && ../../$(BIN)/python crashing.py 200

app: setup  ## the dashboard on RUN (default runs/demo)
	$(BIN)/looplens app $(RUN)

gallery: setup  ## put every claim to the test at quick size, about an hour; writes docs/gallery
	rm -rf runs/gallery/fresh  # an empty cache, so that the times on the pages are whole
	$(BIN)/looplens gallery run --all --quick --cache runs/gallery/fresh --out docs/gallery

docs: setup  ## build the documentation site into site/, strictly
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict

images: demo  ## take the pictures of the documentation anew from the run of the demo, run the notebooks, list the panels
	$(BIN)/python docs/make_images.py
	$(BIN)/python docs/make_notebooks.py
	$(BIN)/python docs/list_panels.py

clean:
	rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache site
