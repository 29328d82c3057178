# Guests: stock Debian kernels, the initrd, and the demonstration.

GUESTS := build/guests
RISCV64 := $(GUESTS)/riscv64
GUEST_SCRIPTS := $(sort $(wildcard tests/guests/scripts/*))

$(RISCV64)/vmlinux: tools/fetch-kernel tools/guest-apt
	tools/fetch-kernel riscv64 $(RISCV64)
	@touch $@

$(RISCV64)/initrd.cpio.gz: $(RISCV64)/vmlinux tools/make-initrd tests/guests/init $(GUEST_SCRIPTS)
	tools/make-initrd $(RISCV64) $@ $(foreach s,$(GUEST_SCRIPTS),$(s)=scripts/$(notdir $(s)))

.PHONY: guests demo
guests: $(RISCV64)/vmlinux $(RISCV64)/initrd.cpio.gz

# Everything of a demonstration before the guest goes to standard error: its output is the guest's.
demo:
	@{ $(MAKE) --no-print-directory deps && $(MAKE) --no-print-directory all guests; } >&2
	@tools/demo $(BUILD)/bin $(RISCV64)
