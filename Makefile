# make demo    set up, then teacher, data, students, table, figures and report for Pong; results/demo
# make check   set up, then style checks and the quick tests
# make test    set up, then style checks and all tests. Those on a real Slurm are left out unless SLURM_TESTS=required, those
#              in a browser that is not there unless BROWSER_TESTS=required: they install Debian packages and need root
# make bench   speed beside Stable-Baselines3 and beside what the machine allows; benchmarks/README.md
# make keep    copy what is light of a run, results/$RUN, into resources/$RUN
# make redraw  tables, figures and page of a run that is kept, resources/$RUN, made of its scores: results/kept/$RUN
# make study-page   the same of the study: results/kept/study/index.html
# make env     only .venv, from the lock; a second when nothing changed
PYTHON ?= python3
SHELL := /bin/bash
BIN := .venv/bin
export PATH := $(CURDIR)/$(BIN):$(PATH)
# Into .venv, whatever a site's settings say.
export PIP_USER := 0
unexport PIP_TARGET PIP_PREFIX

REDRAWN := table figure figure_curves figure_profile figure_teacher_curves page all

.PHONY: demo laptop check test keep can_redraw redraw study-page bench lint format env peers lock

demo laptop: env
	PYTHONPATH=workflow snakemake --logger progress --profile profiles/$@ all
	snakemake --profile profiles/$@ --report results/$@/report.html
	@echo && cat results/$@/table_single_task.md && echo "The result in a browser: results/$@/index.html; figures: results/$@/figures"

check: lint peers
	python -m pytest -n 2 --dist loadgroup -m "not workflow and not slow"

# Three processes on two cores: those on Slurm mostly wait for it.
test: lint peers
	python -m pytest -n 3 --dist loadgroup --durations 40 --durations-min 10

# Scores, learning curves, tables, figures and what made them; no agents, no data.
keep:
	@[[ "$(RUN)" =~ ^[a-z0-9_]+$$ && ! "$(RUN)" =~ ^(students|teachers)$$ ]] && ls results/$(RUN)/table_*.csv &> /dev/null || \
		{ echo "make keep RUN=$(RUN): no such run; allowed: a folder of results/ with tables, not called students or teachers"; exit 1; }
	rm -rf resources/$(RUN) && mkdir resources/$(RUN)
	cd results/$(RUN) && find . -name '*.csv' -o -name '*.csv.json' -o -name '*.tsv' -o -name 'table_*.md' -o -name '*.png' | \
		tar -c -T - | tar -x -C ../../resources/$(RUN)

can_redraw:
	@[[ "$(RUN)" =~ ^[a-z0-9_]+$$ ]] && test -d "resources/$(RUN)/students" || \
		{ echo "make redraw RUN=$(RUN): no such run; allowed: $(patsubst resources/%/students/,%,$(wildcard resources/*/students/))"; exit 1; }
	@test ! -e results/kept/$(RUN) || { echo "results/kept/$(RUN) exists: move it away"; exit 1; }

# Not where the profile trains, which would take our scores for its own. Of a run that is not whole it says what is missing,
# instead of training for hours.
redraw: can_redraw env
	mkdir -p results/kept/$(RUN)
	cp -R $(wildcard $(addprefix resources/$(RUN)/,students teachers random benchmarks)) results/kept/$(RUN)
	PYTHONPATH=workflow snakemake --logger progress --profile profiles/$(RUN) --config results=results/kept/$(RUN) \
		$(addprefix --configfile ,$(wildcard profiles/$(RUN)/kept.yaml)) --allowed-rules $(REDRAWN) -- all

study-page:
	@$(MAKE) redraw RUN=study

# In an environment of its own: the lock, the peers, and this package.
bench: .venv-bench/.complete
	.venv-bench/bin/python benchmarks/bench.py

.venv-bench/.complete: envs/requirements.lock envs/bench.txt pyproject.toml
	$(PYTHON) -m venv .venv-bench
	.venv-bench/bin/python -m pip install --quiet --upgrade pip
	.venv-bench/bin/python -m pip install --quiet -r envs/requirements.lock -r envs/bench.txt
	.venv-bench/bin/python -m pip install --quiet --no-deps --editable .
	@touch $@

lint: env
	ruff check workflow tests benchmarks
	ruff format --check workflow tests benchmarks
	snakefmt --check Snakefile workflow/rules
	mypy
	mypy benchmarks
	@found=$$(snakemake --lint 2>&1); grep -q "^Lints for" <<< "$$found" && \
		! grep "^    \* " <<< "$$found" | grep -v "Specify a conda environment or container" || { echo "$$found"; exit 1; }

format: env
	ruff check --fix workflow tests benchmarks
	ruff format workflow tests benchmarks
	snakefmt Snakefile workflow/rules

env: .venv/.complete

# The lock names all that is needed, so pip need not resolve it; what only some machines need, such as CUDA's libraries for the
# torch that PyPI has for Linux, comes after it. Compiled is what jobs load, by loading it once.
.venv/.complete: envs/requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Python 3.11 or newer is needed; $(PYTHON) is $$($(PYTHON) -V). Try: make PYTHON=python3.11 $(MAKECMDGOALS)"; exit 1; }
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --no-deps --no-compile -r envs/requirements.lock
	$(BIN)/python -m pip install --quiet --no-compile -r envs/requirements.lock
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation --editable .
	$(BIN)/python -c "import torch"
	-$(BIN)/python -m policy_distillation --help > /dev/null
	@touch $@

# Other libraries, whose agents the tests import. Without dependencies: those would replace what the lock pins.
peers: .venv/.peers

.venv/.peers: .venv/.complete envs/peers.txt
	$(BIN)/python -m pip install --quiet --no-deps -r envs/peers.txt
	@touch $@

# Exact versions of envs/requirements.in and of all it needs, without the "+cpu" of a local build.
lock:
	rm -rf .venv-lock && $(PYTHON) -m venv .venv-lock
	.venv-lock/bin/python -m pip install --quiet --upgrade pip
	.venv-lock/bin/python -m pip install --quiet -r envs/requirements.in
	{ echo "# Written by \`make lock\` from requirements.in."; .venv-lock/bin/python -m pip freeze --all --exclude pip | sed 's/+cpu$$//'; } > envs/requirements.lock
	rm -rf .venv-lock
