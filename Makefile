# Lockstep: the commands of developers and of who runs the testbed. `make` alone lists them.

export PATH := $(CURDIR)/.venv/bin:$(PATH)
export MOLECULE_GLOB := molecule/*/molecule.yml
export ANSIBLE_CONFIG := $(CURDIR)/ansible.cfg
export LOCKSTEP_INVENTORY ?= $(CURDIR)/inventories/testbed/base

STAGE := tools/stage

# Scenarios of single roles that no test of tests/e2e covers as well. The others are for `make molecule` and `make test-long`.
OWN_SCENARIOS := gpu_host node_metrics vllm_haproxy nvidia_driver real_packages
COVERED_BY_E2E := serving_runtime admission ray_node vllm_server

.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help env demo demo-down quick check contract lint unit alerts supply audit release lock screenshot wheelhouse mirror-list mutants test test-long sanity molecule roles e2e benchmark clean

help: ## list these commands
	@sed -n 's/^\([a-z0-9-]*\):.*## \(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 22

env: ## make the locked Python environment (.venv)
	@tools/bootstrap

demo: env ## build the testbed, bring the cluster up on it, print what answered
	@tools/demo up

demo-down: env ## remove everything that `make demo` made
	@tools/demo down

quick: env ## after every edit: ruff, mypy, and the unit tests of what changed (seconds)
	@tools/quick

check: env ## the fast half of the tests, no testbed: linters and types beside the unit tests (4 minutes on two cores)
	@tools/beside .cache/lint.log '$(MAKE) --keep-going lint' $(MAKE) --keep-going unit alerts supply

lint: env ## yamllint, ruff, mypy --strict, ansible-lint's production profile, the changelog's fragments
	@$(STAGE) yamllint yamllint --strict .
	@$(STAGE) ruff sh -c 'ruff check . && ruff format --check .'
	@$(STAGE) mypy mypy
	@$(STAGE) changelog antsibull-changelog lint
# Inventories that git does not know are an operator's own, vaults and all.
	@$(STAGE) ansible-lint ansible-lint --offline --strict $$(git ls-files --others --directory inventories | sed 's/^/--exclude /')

unit: env ## unit tests, and the built collection from an empty path
	@$(STAGE) unit pytest -n 4 -m 'not long' tests/unit tests/security tests/collection

contract: env ## tests of what is used of ansible-core, under the lowest supported version
	@$(STAGE) contract tools/contract

alerts: env ## metrics, alert rules, dashboard, checked by promtool, amtool and Grafana's models (downloaded once)
	@$(STAGE) alerts pytest tests/alerts

supply: env ## `make audit` and `make release`, tested with a recorded database and throw-away keys (their tools are downloaded once)
	@$(STAGE) supply pytest -n 2 -m 'not long' tests/supply

audit: env ## SBOMs (CycloneDX) of the three locks, and what OSV knows about what they name; needs the network (docs/security.md)
	@tools/audit

release: env ## the collection, signed: KEY='fingerprint of your gpg key' (CONTRIBUTING.md)
	@tools/release --key '$(KEY)'

lock: env ## renew both locks of the serving environment, say what changed and which known issues they meet; needs the network
	@$(CURDIR)/.venv/bin/python tools/lock

wheelhouse: env ## all wheels of a lock for hosts without internet: TO=/srv/wheels LOCK=cuda PYTHON='3.11 3.12' CONTROLLER=3.12
	@$(CURDIR)/.venv/bin/python tools/wheelhouse $(TO) $(if $(LOCK),--lock $(LOCK)) $(if $(PYTHON),--python $(PYTHON)) \
	    $(if $(CONTROLLER),--controller $(CONTROLLER)) $(if $(MANAGED_PYTHON),--managed-python $(MANAGED_PYTHON)) $(OPTIONS)

mirror-list: env ## all Debian packages that hosts without internet need: TO=/srv/list DRIVER=580.95.05 OPTIONS='--distribution debian:12 …'
	@$(CURDIR)/.venv/bin/python tools/mirror-list $(TO) --driver $(DRIVER) $(OPTIONS)

screenshot: env ## docs/report.png, the README's picture of a report, from a recorded journal; needs chromium
	@$(CURDIR)/.venv/bin/python tools/screenshot

mutants: env ## change the decision code a little, see its tests fail (docs/mutants.md); by hand or nightly: MODULES='engine/ladder …'
	@tools/mutants $(MODULES)

sanity: env ## ansible-test sanity on the built collection
	@$(STAGE) sanity tests/sanity/run

molecule: env ## every Molecule scenario, on a testbed of their own
	@$(STAGE) molecule env NO_COLOR=1 tools/molecule $(SCENARIOS)

roles: env # these scenarios wait for hosts: linters, sanity and unit tests run beside them, and report at the end
	@tools/beside .cache/beside.log '$(MAKE) --keep-going lint sanity unit alerts supply' $(MAKE) molecule SCENARIOS='$(OWN_SCENARIOS)'

e2e: env ## the tests of tests/e2e, on a testbed of their own
	@$(STAGE) e2e pytest -m 'not long' --durations=20 tests/e2e

test-long: env contract ## the scenarios that `make test` leaves out: every fault of a roll, many killed controllers (hours)
	@$(STAGE) roles-long env NO_COLOR=1 tools/molecule $(COVERED_BY_E2E); status=$$?; \
	$(STAGE) debian13 env NO_COLOR=1 LOCKSTEP_TESTBED_SUITE=trixie tools/molecule gpu_host nvidia_driver real_packages || status=1; \
	$(STAGE) serving13 env LOCKSTEP_TESTBED_SUITE=trixie pytest -m 'not long' tests/e2e/test_site.py || status=1; \
	$(STAGE) standalone env NO_COLOR=1 tools/molecule standalone || status=1; \
	$(STAGE) long pytest -m long tests/e2e tests/security tests/supply && exit $$status

test: roles e2e ## lint, sanity, unit tests, the scenarios of single roles and tests/e2e

molecule roles e2e test-long: export LOCKSTEP_TESTBED ?= test
molecule roles e2e test-long: export LOCKSTEP_TESTBED_PREFIX ?= 10.89.78

benchmark: env ## every benchmark, with the figures docs/performance.md quotes
	@benchmarks/run

clean: ## remove caches (not the environment, not the testbed)
	rm -rf .cache/sanity .mypy_cache .ruff_cache .pytest_cache .ansible
