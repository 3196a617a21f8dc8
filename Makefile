# make train   fresh machine -> .venv -> trains `basic`, scores it, writes a replay
# make test    fresh machine -> .venv -> the test suite
# make gpu-check  on a machine with a GPU: its tests, speeds and a training, to benchmarks/results/gpu.md
# make check   ruff, ruff format, mypy, import layers
# make demo    all policies of the zoo as they play, to docs/images/demo.gif
# make board   the published learning curves in TensorBoard
# make docs    the pages in docs/, with up-to-date tables, to build/docs
PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check
INSTALLED := .venv/.installed
INSTALLED_DEV := .venv/.installed-dev
RUN := runs/basic/ppo-seed0

.PHONY: train test test-slow test-gpu gpu-check check format docs demo board install install-dev tensorboard clean

train: $(INSTALLED)
	$(BIN)/python train.py basic --run-dir $(RUN)
	$(BIN)/python evaluate.py score $(RUN)
	$(BIN)/python evaluate.py replay $(RUN) --count 10

# Three processes, because each often waits for engines and processes that it started.
test: $(INSTALLED_DEV)
	$(BIN)/python -m pytest --numprocesses 3 --dist loadscope

test-slow: $(INSTALLED_DEV)
	$(BIN)/python -m pytest -m slow --timeout 3600

test-gpu: $(INSTALLED_DEV)
	$(BIN)/python -m pytest -m gpu

# On a machine with a GPU, in at most eight minutes: tests, a table of speeds, and `basic` trained to 75.
gpu-check: $(INSTALLED_DEV)
	$(BIN)/python -m benchmarks.gpu_check

check: $(INSTALLED_DEV)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --config setup.cfg

# A GIF of all policies of the zoo as they play, docs/images/demo.gif, in a few minutes.
demo: $(INSTALLED)
	$(BIN)/python -m docs.demo

# The published learning curves in TensorBoard, under Custom Scalars.
board: $(INSTALLED)
	$(BIN)/python evaluate.py board
	$(BIN)/tensorboard --logdir runs/board --samples_per_plugin scalars=100000

format: $(INSTALLED_DEV)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: $(INSTALLED_DEV)
	$(BIN)/python -m docs.flags
	$(BIN)/python -m docs.scenarios
	$(BIN)/python -m docs.results
	$(BIN)/python -m sphinx -W --keep-going -q docs build/docs
	@echo "see build/docs/index.html"

# By default, TensorBoard drops points and shows ten images at most. (0 should keep all, but shows none.)
tensorboard: $(INSTALLED)
	$(BIN)/tensorboard --logdir runs --samples_per_plugin scalars=100000,images=100

install: $(INSTALLED)
install-dev: $(INSTALLED_DEV)

$(BIN)/python:
	$(PYTHON) -m venv .venv || { rm -rf .venv; echo "python3 -m venv failed; on Debian and Ubuntu: apt-get install python3-venv"; exit 1; }

$(INSTALLED): setup.cfg constraints.txt | $(BIN)/python
	$(PIP) --constraint constraints.txt --editable .
	@$(BIN)/python -c "import cv2" || { echo "OpenCV needs two system libraries: apt-get install libgl1 libglib2.0-0"; exit 1; }
	@touch $@

$(INSTALLED_DEV): $(INSTALLED)
	$(PIP) --constraint constraints.txt --editable ".[atari,box2d,minigrid,digits,sb3,export,explain,tune,hub,wandb,trackio,docs,dev]"
	@touch $@

clean:
	rm -rf .venv build *.egg-info
