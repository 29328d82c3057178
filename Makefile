# polyvisor: build, test, demonstrate and install.
#
#   make            programs in build/bin/
#   make deps       install the Debian packages needed
#   make check      all tests; the last line is "N passed, N failed"
#   make check-image  a Debian image built, booted and reached: some minutes
#   make demo       boot a stock Debian riscv64 kernel
#   make lockstep   the long proof that the engine's tiers agree
#   make fuzz        FUZZ_SECONDS=60 of each fuzzer (tests/fuzz/fuzz.mk)
#   make bench      ratios against QEMU on this machine; bench-net, bench-disk, bench-share, bench-recovery
#   make install    PREFIX= DESTDIR=
#
# SAN=address,undefined or SAN=thread builds everything again below build/san-*/ with sanitizers.
# HOST=arm64 builds for that host on another one, below build/arm64/ (tools/cross.mk).

VERSION := 0.1.0
CC := clang-19
AR := llvm-ar-19
PREFIX ?= /usr/local
DESTDIR ?=

SAN ?=
HOST ?=
comma := ,
COVERAGE ?=
BUILD := build$(if $(HOST),/$(HOST))$(if $(SAN),/san-$(subst $(comma),-,$(SAN)))$(if $(COVERAGE),-coverage)
OPT ?= -O2

CPPFLAGS := -D_GNU_SOURCE -I. -I$(BUILD)/gen -DPOLYVISOR_VERSION='"$(VERSION)"'
CFLAGS := -std=gnu17 $(OPT) -g -Wall -Wextra -Werror -Wshadow -Wstrict-prototypes \
    -Wmissing-prototypes -Wpointer-arith -fno-omit-frame-pointer -fno-math-errno -ffp-contract=off \
    -fvisibility=hidden -pthread
LDFLAGS := -pthread -fuse-ld=lld-19
ifneq ($(SAN),)
CFLAGS += -fsanitize=$(SAN) -fno-sanitize-recover=all
LDFLAGS += -fsanitize=$(SAN)
endif
ifneq ($(COVERAGE),)
CFLAGS += -fprofile-instr-generate -fcoverage-mapping
LDFLAGS += -fprofile-instr-generate
endif

.DEFAULT_GOAL := all
.SUFFIXES:
.SECONDARY:
.DELETE_ON_ERROR:

include tools/cross.mk
include tools/build.mk
include tools/guests.mk
include tools/agent.mk
include tests/fuzz/fuzz.mk
include tools/check.mk
include tools/bench.mk
include tools/install.mk

.PHONY: all clean deps
all: $(PROGRAMS) $(SHARED_FILES) $(AGENTS)

deps:
	tools/install-deps

clean:
	rm -rf build
