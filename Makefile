# The only front door. `make help` lists what there is.
.DEFAULT_GOAL := help
SHELL := /bin/bash

# Arguments for demo, chaos, chaos-postgres and bench, as: make demo ARGS="--seed 7 --json"
ARGS ?=

.PHONY: help
help: ## List the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{ printf "  make %-15s %s\n", $$1, $$2 }'

# What a build needs, or one line that says what is missing.
PROVIDE := scripts/provide cargo cc

# What the demo's endpoint keeps its data in: an SQLite file, or a private Postgres, which ends with the demo.
BACKEND ?= sqlite
ON_POSTGRES := $(filter postgres,$(BACKEND))

.PHONY: demo
demo: ## Three devices and an endpoint work through a bad day on real data; a checker gives the verdict; BACKEND=postgres
	@case '$(BACKEND)' in sqlite | postgres) ;; *) echo "there is no BACKEND=$(BACKEND): it is sqlite or postgres" >&2; exit 2;; esac
	@$(PROVIDE) $(if $(ON_POSTGRES),libclang postgres)
	@cargo run --locked --quiet -p syncline-cli $(if $(ON_POSTGRES),--features chaos) -- demo $(if $(ON_POSTGRES),--backend postgres) $(ARGS)

.PHONY: chaos
chaos: ## Real processes over a bad network, killed at random for 30 minutes, then every rule; ARGS="--minutes 5 --seed 7"
	@$(PROVIDE) libclang
	@cargo run --locked --quiet -p syncline-cli --features chaos -- chaos $(ARGS)

.PHONY: chaos-postgres
chaos-postgres: ## Postgres killed 100 times, failed over, raced by writers and probed by strangers, 25 minutes; ARGS="--sample --part late"
	@$(PROVIDE) libclang postgres
	@cargo run --locked --quiet -p syncline-cli --features chaos -- chaos-postgres $(ARGS)

.PHONY: test
test: ## Every test and check, with a table at the end; SKIP="demo deny" leaves parts out
	@scripts/test

.PHONY: test-long
test-long: ## The same with more cases of each property, more schedules of threads, ten days of the demo and 30 minutes of chaos
	@scripts/test --long

# What `make simulate` lives: a range of seeds, the end left out, or one seed.
SEEDS ?= 1..1001
# Which planted bugs `make simulate-teeth` hunts: all, if none is named.
BUGS ?=
SIMULATE := cargo run --locked --quiet --profile simulate -p syncline-testkit --features teeth --bin simulate --

.PHONY: simulate
simulate: ## Simulated worlds on all cores, every fault there is; SEEDS=1..100001 or SEEDS=17, ARGS="--json"
	@$(PROVIDE) libclang
	@$(SIMULATE) --seeds $(SEEDS) $(ARGS)

.PHONY: simulate-teeth
simulate-teeth: ## Planted bugs, each of which the simulator must catch; BUGS="forget-epoch ignore-lane" for some
	@$(PROVIDE) libclang
	@$(SIMULATE) --seeds 1..5001 --teeth $(BUGS) $(ARGS)

# How many streams `make differential` sends.
STREAMS ?= 100000

.PHONY: differential
differential: ## Random streams of requests to SQLite and Postgres, the model the third judge; STREAMS=1000, ARGS="--with none"
	@$(PROVIDE) libclang postgres
	@cargo run --locked --quiet --profile simulate -p syncline-testkit --features teeth --bin differential -- --seeds 1..$$(($(STREAMS) + 1)) $(ARGS)

.PHONY: check
check: ## What is quick: format, lints, dependencies, the map of rules and tests
	@scripts/test format lint deny map

.PHONY: bench
bench: ## Ratios against plain programs, side by side; ARGS="--quick enqueue" for less
	@$(PROVIDE) libclang
	@cargo bench --locked --quiet -p syncline-testkit --bench ratios -- $(ARGS)

.PHONY: bench-server
bench-server: ## The endpoints beside plain SQL that writes the same rows; about 4 minutes; ARGS="--quick postgres" for less
	@$(PROVIDE) libclang postgres
	@cargo bench --locked --quiet -p syncline-testkit --bench server -- $(ARGS)

.PHONY: generate
generate: ## Write the bindings for Kotlin and Swift (bindings/) from rust/syncline-ffi
	@$(PROVIDE)
	@scripts/bindings

.PHONY: verify
verify: ## Check that the committed bindings are what the library gives
	@$(PROVIDE)
	@scripts/bindings --verify

.PHONY: fuzz
fuzz: ## Fuzz what reads bytes from outside, ten minutes each target; ARGS="push --seconds 60" for less
	@scripts/fuzz $(ARGS)

.PHONY: smoke-supabase
smoke-supabase: ## Try a real Supabase project: URL=https://abc.supabase.co KEY=sb_publishable_…; docs/supabase.md says who asks
	@$(PROVIDE) libclang
	@scripts/smoke-supabase "$(URL)" "$(KEY)"

.PHONY: check-android
check-android: ## Type-check the core for Android (aarch64)
	@scripts/cross-check aarch64-linux-android

.PHONY: check-ios
check-ios: ## Type-check the core for iOS (aarch64)
	@scripts/cross-check aarch64-apple-ios

.PHONY: format
format: ## Format the sources
	@cargo fmt --all

.PHONY: clean
clean: ## Remove everything that was built
	@cargo clean
