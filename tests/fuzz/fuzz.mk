# Fuzzers: every tests/fuzz/fuzz_*.c is one libFuzzer program, built with sanitizers.
#
#   make fuzz FUZZ_SECONDS=600    each that long, one after the other; FUZZ=net: only fuzz_net
#   make fuzz-coverage            which lines the corpora reach; FUZZ= as above
#   make fuzz-minimise FUZZ=net   put what earlier runs found into tests/fuzz/corpus/
#
# What runs find is kept in build/fuzz/<name>/. `make check` replays tests/fuzz/corpus/ and fuzzes
# each for a moment: tests/integration/test_fuzz.sh.

FUZZ_SECONDS ?= 60
FUZZ ?=
FUZZ_SAN := fuzzer-no-link,address,undefined
FUZZ_SOURCES := $(sort $(wildcard tests/fuzz/fuzz_*.c))
FUZZ_NAMES := $(FUZZ_SOURCES:tests/fuzz/%.c=%)
FUZZ_PROGRAMS := $(FUZZ_NAMES:%=$(BUILD)/fuzz/%)
FUZZ_SELECTED = $(if $(FUZZ),$(filter fuzz_$(FUZZ:fuzz_%=%),$(FUZZ_NAMES)),$(FUZZ_NAMES))

# Devices register themselves in a linker section: these need all of the archive.
FUZZ_ALL_OF_DEVD := fuzz_virtio fuzz_vsock fuzz_net fuzz_mmio fuzz_devd
# What they take from other tests, and the agent, which is a program of its own.
$(BUILD)/fuzz/fuzz_agent: $(call objects,$(filter-out agent/main.c,$(AGENT_SOURCES)))
$(BUILD)/fuzz/fuzz_engine: $(call objects,tests/lockstep/bare_machine.c tests/lockstep/state.c)
$(BUILD)/fuzz/fuzz_ir: $(call objects,tests/lockstep/state.c)

# The device of network disks alone has libnbd in it; jitd's sessions have the names of its own.
$(BUILD)/fuzz/fuzz_nbd: $(LIB_NBD)
$(BUILD)/fuzz/fuzz_nbd: LIBS += $(LIBS_NBD)

$(BUILD)/fuzz/%: $(BUILD)/obj/tests/fuzz/%.o $(LIB_VCPU) $(LIB_DEVD) $(LIB_VMMD) $(LIB_CLI) $(LIB_JITD) $(LIB_SHARED)
	@mkdir -p $(@D)
	$(QUIET_LD)$(CC) $(LDFLAGS) -fsanitize=fuzzer -o $@ $(filter %.o,$^) -Wl,--whole-archive \
	    $(if $(filter $*,$(FUZZ_ALL_OF_DEVD)),$(LIB_DEVD)) \
	    -Wl,--no-whole-archive -Wl,--start-group \
	    $(filter-out $(if $(filter fuzz_nbd,$*),$(LIB_JITD)),$(filter %.a,$^)) -Wl,--end-group \
	    $(LIBS) $(LIBS_CLI) $(LIBS_VCPU) $(LIBS_JITD) $(LIBS_DEVD)

.PHONY: fuzz fuzz-build fuzz-programs fuzz-coverage fuzz-minimise
fuzz-programs: $(FUZZ_SELECTED:%=$(BUILD)/fuzz/%)

# Less optimisation than usual: it is built anew by everybody who runs the tests.
fuzz-build:
	@$(MAKE) --no-print-directory SAN=$(FUZZ_SAN) OPT=-O1 fuzz-programs

fuzz: fuzz-build
	@tests/fuzz/run $(FUZZ_SECONDS) $(FUZZ_SELECTED)

fuzz-minimise: fuzz-build
	@tests/fuzz/minimise $(FUZZ_SELECTED)

# With a sanitizer, too: without one, devd and jitd would confine themselves and write no account.
fuzz-coverage:
	@$(MAKE) --no-print-directory SAN=fuzzer-no-link,address COVERAGE=1 OPT=-O1 fuzz-programs
	@tests/fuzz/coverage $(FUZZ_SELECTED)
