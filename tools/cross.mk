# HOST=arm64: build for another host, with Debian's packages for it as the sysroot. Everything but jitd
# (no LLVM for that host is fetched).
#
#   make HOST=arm64 [all|unit|...]
#
# `make check` runs some of it under user-mode QEMU: tests/integration/test_arm64_host.sh.

ARM64_SYSROOT := build/arm64/sysroot
ifeq ($(HOST),arm64)
CROSS := --target=aarch64-linux-gnu --sysroot=$(ARM64_SYSROOT)/root
CFLAGS += $(CROSS)
LDFLAGS += $(CROSS)
WITHOUT_LLVM := 1
ifeq ($(shell test $(ARM64_SYSROOT)/fetched -nt tools/arm64-sysroot -a $(ARM64_SYSROOT)/fetched -nt tools/packages.list && \
    echo is new),)
$(shell tools/arm64-sysroot $(ARM64_SYSROOT) >&2)
endif
else ifneq ($(HOST),)
$(error HOST=$(HOST) is not known: arm64, or none for this machine's own)
endif

# What test_arm64_host.sh runs: all that depends on the host's instructions, and what proves it.
HOST_TESTS := $(addprefix $(BUILD)/tests/unit/test_,emit_arm64 fp engine engine_full engine_code engine_ops engine_smp code_memory)
HOST_TESTS += $(addprefix $(BUILD)/tests/lockstep/,lockstep torture boot)
.PHONY: host-tests arm64-tests
host-tests: $(HOST_TESTS)
	@:
arm64-tests:
	@$(MAKE) --no-print-directory HOST=arm64 host-tests
