# Proof that the engine's tiers agree (tests/lockstep): random streams, a booting kernel, torture guests.
#
#   make lockstep           the long proof: random streams of a million blocks, whole boots
#   make lockstep SEED=2    another one
#   make lockstep REGION_BLOCKS=1000000   of the optimised tier, too: an hour
#
# `make check` runs a bounded part of the same: tests/integration/test_lockstep.sh.

LOCKSTEP := $(BUILD)/tests/lockstep
LOCKSTEP_GUEST_SOURCES := $(sort $(wildcard tests/guests/lockstep/torture/*.c))
LOCKSTEP_IMAGES := $(LOCKSTEP_GUEST_SOURCES:tests/guests/lockstep/torture/%.c=$(LOCKSTEP)/torture.d/%)
LOCKSTEP_PROGRAMS := $(LOCKSTEP)/lockstep $(LOCKSTEP)/boot $(LOCKSTEP)/torture $(LOCKSTEP)/runner $(LOCKSTEP_IMAGES)

LOCKSTEP_OPTIMISER := $(if $(WITHOUT_LLVM),optimiser_absent,optimiser)

lockstep_objects = $(patsubst %,$(BUILD)/obj/tests/lockstep/%.o,$(1))
$(LOCKSTEP)/lockstep: $(call lockstep_objects,lockstep generate units_integer units_memory \
    units_float units_control units_call units_trap values reference subject state bare_machine \
    kicker $(LOCKSTEP_OPTIMISER))
$(LOCKSTEP)/torture: $(call lockstep_objects,torture bare_machine $(LOCKSTEP_OPTIMISER))
$(LOCKSTEP)/boot: $(call lockstep_objects,boot narrow pair side state serial_port kicker $(LOCKSTEP_OPTIMISER))
$(LOCKSTEP)/lockstep $(LOCKSTEP)/boot $(LOCKSTEP)/torture: LIBS += $(LIBS_JITD)
$(LOCKSTEP)/lockstep $(LOCKSTEP)/boot $(LOCKSTEP)/torture: $(LIB_VCPU) $(LIB_JITD) $(LIB_SHARED)
	@mkdir -p $(@D)
	$(QUIET_LD)$(CC) $(LDFLAGS) -o $@ $(filter %.o,$^) \
	    -Wl,--start-group $(filter %.a,$^) -Wl,--end-group $(LIBS) $(LIBS_VCPU)

$(LOCKSTEP)/runner: tests/guests/lockstep/runner.c tests/lockstep/stream.h
	@mkdir -p $(@D)
	$(QUIET_GUEST)$(RISCV64_CC) $(GUEST_CFLAGS) -I. -o $@ $<

# Bare-metal programs, linked at the start of RAM and loaded as they are.
TORTURE_CFLAGS := -std=gnu17 -O1 -g0 -Wall -Wextra -Werror -ffreestanding -fno-pic -fno-stack-protector \
    -mcmodel=medany -mno-relax -march=rv64gc -mabi=lp64d -static -nostdlib -nostartfiles -I. -Wl,--build-id=none \
    -Wl,-T,tests/guests/lockstep/torture/guest.ld
$(LOCKSTEP)/torture.d/%: tests/guests/lockstep/torture/%.c $(wildcard tests/guests/lockstep/torture/guest*)
	@mkdir -p $(@D)
	$(QUIET_GUEST)$(RISCV64_CC) $(TORTURE_CFLAGS) -o $@.elf $< tests/guests/lockstep/torture/guest_start.S
	@riscv64-linux-gnu-objcopy -O binary $@.elf $@

ifeq ($(V),)
QUIET_GUEST = @echo "  GUEST $<";
endif

.PHONY: lockstep
SEED ?= 1
REGION_BLOCKS ?= 100000
lockstep:
	@$(MAKE) --no-print-directory deps
	@$(MAKE) --no-print-directory -j$$(nproc) $(LOCKSTEP_PROGRAMS) guests test-guests
	@BUILD=$(BUILD) LOCKSTEP_SEED=$(SEED) LOCKSTEP_BLOCKS=1000000 LOCKSTEP_REGION_BLOCKS=$(REGION_BLOCKS) LOCKSTEP_SHARE=10 \
	    LOCKSTEP_BOOT_INSTRUCTIONS=0 \
	    tests/integration/test_lockstep.sh

# Regions are tested with the same streams.
LOCKSTEP_GENERATOR := $(call lockstep_objects,generate units_integer units_memory units_float units_control \
    units_call units_trap values)
$(BUILD)/tests/unit/test_region_compiler: $(LOCKSTEP_GENERATOR)
