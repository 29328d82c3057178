# Tests: every tests/unit/test_*.c is one Check program; every tests/integration/test_* an executable
# that starts the real daemons. tests/run adds up what they say.
#
#   make check              everything; SAN= for sanitizers (docs/design/testing.md)
#   make check ONLY=plic    the tests whose names contain that word

UNIT_SOURCES := $(sort $(wildcard tests/unit/test_*.c))
ifneq ($(WITHOUT_LLVM),)
UNIT_SOURCES := $(filter-out $(shell grep -l '"jitd/' tests/unit/*.c),$(UNIT_SOURCES))
endif
UNIT_PROGRAMS := $(UNIT_SOURCES:tests/%.c=$(BUILD)/tests/%)
INTEGRATION_PROGRAMS := $(sort $(shell find tests/integration -maxdepth 1 -name 'test_*' -perm -u+x))
ONLY ?=
ALL_TESTS := $(UNIT_PROGRAMS) $(INTEGRATION_PROGRAMS)
SELECTED_TESTS = $(if $(ONLY),$(foreach t,$(ALL_TESTS),$(if $(findstring $(ONLY),$(t)),$(t))),$(ALL_TESTS))

$(BUILD)/tests/unit/%: $(BUILD)/obj/tests/unit/%.o $(LIB_VCPU) $(LIB_DEVD) $(LIB_NBD) $(LIB_CONNECTD) $(LIB_VMMD) $(LIB_CLI) $(LIB_JITD) \
    $(LIB_SHARED)
	@mkdir -p $(@D)
	$(QUIET_LD)$(CC) $(LDFLAGS) -o $@ $(filter %.o,$^) \
	    -Wl,--start-group $(filter %.a,$^) -Wl,--end-group -lcheck -lsubunit -lrt $(LIBS) $(LIBS_CLI) $(LIBS_VCPU) $(LIBS_JITD) $(LIBS_DEVD) $(if $(findstring nbd,$@),$(LIBS_NBD))

# Programs that tests put in jitd's place.
JIT_DOUBLES := $(addprefix $(BUILD)/tests/jitd/,jitd_double jitd_garbage)
$(BUILD)/tests/jitd/%: $(BUILD)/obj/tests/jitd/%.o $(BUILD)/obj/jitd/main.o $(LIB_JITD) $(LIB_SHARED)
	@mkdir -p $(@D)
	$(QUIET_LD)$(CC) $(LDFLAGS) -o $@ $(filter-out $(if $(findstring garbage,$@),%/main.o),$(filter %.o,$^)) \
	    $(filter %.a,$^) $(LIBS)

# qcow2 images by command line.
QCOW2_TOOL := $(BUILD)/tests/qcow2/tool
$(QCOW2_TOOL): $(BUILD)/obj/tests/qcow2/tool.o $(LIB_SHARED)
	@mkdir -p $(@D)
	$(QUIET_LD)$(CC) $(LDFLAGS) -o $@ $^ $(LIBS) $(LIBS_IMAGES)

# A devd whose random number device is one that tries to get out.
ESCAPE_DEVD := $(BUILD)/tests/escape/devd
$(ESCAPE_DEVD): $(call objects,tests/escape/device.c tests/escape/escapes.c devd/main.c) \
    $(call archive_objects,$(filter-out devd/devices/virtio_rng.c,$(DEVD_SOURCES))) $(LIB_SHARED)
	@mkdir -p $(@D)
	$(QUIET_LD)$(CC) $(LDFLAGS) -o $@ $^ $(LIBS) $(LIBS_DEVD)

# A vcpud and a jitd that try to get out once they have confined themselves.
ESCAPE_DAEMONS := $(BUILD)/tests/escape/vcpud $(if $(WITHOUT_LLVM),,$(BUILD)/tests/escape/jitd)
SEALED_OBJECTS := $(call objects,tests/escape/sealed.c tests/escape/escapes.c)
$(BUILD)/tests/escape/vcpud: $(call objects,vmmd/vcpu/main.c) $(SEALED_OBJECTS) $(LIB_VCPU) $(LIB_SHARED)
$(BUILD)/tests/escape/jitd: $(call objects,jitd/main.c) $(SEALED_OBJECTS) $(LIB_JITD) $(LIB_SHARED)
$(BUILD)/tests/escape/vcpud: LIBS += $(LIBS_VCPU)
$(BUILD)/tests/escape/jitd: LIBS += $(LIBS_JITD)
$(ESCAPE_DAEMONS):
	@mkdir -p $(@D)
	$(QUIET_LD)$(CC) $(LDFLAGS) -Wl,--wrap=sandbox_seal -o $@ $^ $(LIBS)

-include tools/lockstep.mk

# What tests start besides polyvisor's programs, by a word of the tests' names: with ONLY= no more is built than
# the selected tests need.
HELPERS_qcow2 := $(QCOW2_TOOL)
HELPERS_jitd := $(JIT_DOUBLES)
HELPERS_escape := $(ESCAPE_DEVD) $(ESCAPE_DAEMONS)
HELPERS_lockstep := $(LOCKSTEP_PROGRAMS)
HELPERS_arm64 := $(if $(HOST)$(SAN),,arm64-tests)
HELPERS_fuzz := $(if $(HOST)$(SAN),,fuzz-build)
SELECTED_UNITS = $(filter $(UNIT_PROGRAMS),$(SELECTED_TESTS))
SELECTED_HELPERS = $(foreach word,qcow2 jitd escape lockstep arm64 fuzz,$(if \
    $(findstring $(word),$(if $(ONLY),$(SELECTED_TESTS),$(word))),$(HELPERS_$(word))))

.PHONY: tests unit check check-image
unit: $(UNIT_PROGRAMS)
tests: all $(SELECTED_UNITS) $(SELECTED_HELPERS) guests test-guests

check:
	@$(MAKE) --no-print-directory deps
	@$(MAKE) --no-print-directory -j$$(nproc) tests
	@$(if $(findstring thread,$(SAN)),$(MAKE) --no-print-directory -j$$(nproc) SAN= build/bin/vcpud)
	@tests/run $(BUILD) $(SELECTED_TESTS)

# Builds a Debian image, boots it here and with QEMU, installs a package, compiles, logs in by ssh: some
# minutes, and the times of both. What it fetches is kept below build/. IMAGE_ROUNDS=3 gives medians.
check-image:
	@$(MAKE) --no-print-directory deps
	@$(MAKE) --no-print-directory -j$$(nproc) all test-guests
	@IMAGE_BUILD=1 TEST_TIMEOUT=$${TEST_TIMEOUT:-10800} tests/run $(BUILD) tests/integration/test_image.sh; \
	    status=$$?; sed -n 's/^figure - /  /p' $(BUILD)/tests/logs/test_image.sh.log; exit $$status
