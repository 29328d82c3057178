# HOST=arm64: build for another host, with Debian's packages for it as the sysroot.
#
#   make HOST=arm64 [all|unit|lockstep]
#
# `make check` runs a part of what comes out under user-mode QEMU (tests/integration/test_arm64_host.sh).

ARM64_SYSROOT := build/arm64/sysroot
ARM64_READY := $(ARM64_SYSROOT)/root/usr/include/check.h
ifeq ($(HOST),arm64)
CROSS := --target=aarch64-linux-gnu --sysroot=$(ARM64_SYSROOT)/root
CFLAGS += $(CROSS)
LDFLAGS += $(CROSS)
$(if $(wildcard $(ARM64_READY)),,$(shell tools/arm64-sysroot $(ARM64_SYSROOT) >&2))
else ifneq ($(HOST),)
$(error HOST=$(HOST) is not known: arm64, or none for this machine's own)
endif
