# Guests: stock Debian kernels, the initrd, and the demonstration.

GUESTS := build/guests
RISCV64 := $(GUESTS)/riscv64
GUEST_SCRIPTS := $(sort $(wildcard tests/guests/scripts/*))

$(RISCV64)/vmlinux: tools/fetch-kernel tools/guest-apt
	tools/fetch-kernel riscv64 $(RISCV64)
	@touch $@

$(RISCV64)/initrd.cpio.gz: $(RISCV64)/vmlinux tools/make-initrd tests/guests/init tests/guests/load-modules tests/guests/power-key \
    tests/guests/udhcpc-script \
    $(GUEST_SCRIPTS)
	$(QUIET_GEN)tools/make-initrd $(RISCV64) $@ $(foreach s,$(GUEST_SCRIPTS),$(s)=scripts/$(notdir $(s)))

.PHONY: guests demo
guests: $(RISCV64)/vmlinux $(RISCV64)/initrd.cpio.gz

# Everything of a demonstration before the guest goes to standard error: its output is the guest's.
demo:
	@{ $(MAKE) --no-print-directory deps && $(MAKE) --no-print-directory all guests; } >&2
	@tools/demo $(BUILD)/bin $(RISCV64)

# Our own programs for the guest, cross-compiled.
RISCV64_CC := riscv64-linux-gnu-gcc
GUEST_CFLAGS := -std=gnu17 -O2 -g0 -static -Wall -Wextra -Werror -ffp-contract=off -pthread
BENCH_SOURCES := $(sort $(wildcard tests/guests/bench/*.c))
PROGRAM_SOURCES := $(sort $(wildcard tests/guests/programs/*.c))
RISCV64_PROGRAMS := $(PROGRAM_SOURCES:tests/guests/programs/%.c=$(RISCV64)/programs/%) $(RISCV64)/programs/bench

$(RISCV64)/programs/bench: $(BENCH_SOURCES) tests/guests/bench/bench.h
	@mkdir -p $(@D)
	$(RISCV64_CC) $(GUEST_CFLAGS) -o $@ $(BENCH_SOURCES) -lm

$(RISCV64)/programs/%: tests/guests/programs/%.c
	@mkdir -p $(@D)
	$(RISCV64_CC) $(GUEST_CFLAGS) -o $@ $<

# Firmware of ours: raw binaries for the start of RAM.
$(RISCV64)/firmware/%.bin: tests/guests/firmware/%.S
	@mkdir -p $(@D)
	$(RISCV64_CC) -nostdlib -static -Wl,-Ttext=0x80000000 -Wl,--build-id=none -o $(@:.bin=.elf) $<
	riscv64-linux-gnu-objcopy -O binary -j .text $(@:.bin=.elf) $@

# The initrd of the tests: the plain one, and our programs.
$(RISCV64)/test-initrd.cpio.gz: $(RISCV64)/initrd.cpio.gz $(RISCV64_PROGRAMS) build/agent/riscv64/polyvisor-agent
	$(QUIET_GEN)tools/make-initrd $(RISCV64) $@ $(foreach s,$(GUEST_SCRIPTS),$(s)=scripts/$(notdir $(s))) \
	    $(foreach p,$(RISCV64_PROGRAMS),$(p)=bin/$(notdir $(p))) \
	    build/agent/riscv64/polyvisor-agent=bin/polyvisor-agent

# Debian's fio and ethtool, for the tests of disks and network cards.
$(RISCV64)/fio.img: tools/make-fio-root tools/guest-apt $(RISCV64)/vmlinux
	tools/make-fio-root $(RISCV64) riscv64 $@

# The same with git, for `make bench-share`.
$(RISCV64)/share.img: tools/make-fio-root tools/guest-apt $(RISCV64)/vmlinux
	tools/make-fio-root $(RISCV64) riscv64 $@ git=usr/bin/git

.PHONY: test-guests
test-guests: $(RISCV64)/test-initrd.cpio.gz $(RISCV64)/fio.img
