# make bench [ENGINE=interp|baseline|auto[,...]] [BENCH_FLAGS="--json --only NAME... --no-real"]
#
# make bench-net [BENCH_FLAGS="--repetitions N --cpus N"]: the network, by iperf3.
# make bench-share [BENCH_FLAGS="--files N --theirs 9p --only WORD..."]: a shared directory, against virtiofsd. As
#     many files as a kernel has: BENCH_FLAGS="--files 80000 --repetitions 1 --only untar walk remove git".
# make bench-recovery [KILLS=200] [KINDS="disk rng all"]: how long devices are away when they are killed.
# make bench-disk [BENCH_FLAGS="--repetitions N --cpus N --cache none --format qcow2 --only WORD..."]: disks, by fio.
#
# The disk has programs of Debian packages (some 90 MB are fetched once) and what they work on.

ENGINE ?= auto
BENCH_DISK := $(RISCV64)/bench-root.img
BENCH_INPUT := tests/guests/bench/real
BENCH_COMPILED := tests/guests/bench/fp.c tests/guests/bench/bench.h

$(BENCH_DISK): tools/make-bench-root tools/guest-apt $(RISCV64)/vmlinux $(sort $(wildcard $(BENCH_INPUT)/*)) \
    $(BENCH_COMPILED)
	tools/make-bench-root $(RISCV64) $@ $(BENCH_INPUT) $(BENCH_COMPILED)

.PHONY: bench
bench:
	@{ $(MAKE) --no-print-directory deps && \
	    $(MAKE) --no-print-directory all guests test-guests $(BENCH_DISK) $(RISCV64)/firmware/once.bin; } >&2
	@python3 -B tests/bench/bench.py --vmctl $(BUILD)/bin/vmctl --engine $(ENGINE) --disk $(BENCH_DISK) \
	    --firmware $(RISCV64)/firmware/once.bin \
	    --kernel $(RISCV64)/vmlinux --initrd $(RISCV64)/test-initrd.cpio.gz $(BENCH_FLAGS)

.PHONY: bench-net
bench-net:
	@{ $(MAKE) --no-print-directory deps && \
	    $(MAKE) --no-print-directory all guests test-guests $(BENCH_DISK); } >&2
	@python3 -B tests/bench/net.py --vmctl $(BUILD)/bin/vmctl --engine $(ENGINE) --disk $(BENCH_DISK) \
	    --kernel $(RISCV64)/vmlinux --initrd $(RISCV64)/test-initrd.cpio.gz $(BENCH_FLAGS)

.PHONY: bench-disk
bench-disk:
	@{ $(MAKE) --no-print-directory deps && $(MAKE) --no-print-directory all guests test-guests; } >&2
	@python3 -B tests/bench/disk.py --vmctl $(BUILD)/bin/vmctl --engine $(ENGINE) --disk $(RISCV64)/fio.img \
	    --kernel $(RISCV64)/vmlinux --initrd $(RISCV64)/test-initrd.cpio.gz $(BENCH_FLAGS)

.PHONY: bench-share
bench-share:
	@{ $(MAKE) --no-print-directory deps && \
	    $(MAKE) --no-print-directory all guests test-guests $(RISCV64)/share.img; } >&2
	@python3 -B tests/bench/share.py --vmctl $(BUILD)/bin/vmctl --engine $(ENGINE) --disk $(RISCV64)/share.img \
	    --kernel $(RISCV64)/vmlinux --initrd $(RISCV64)/test-initrd.cpio.gz $(BENCH_FLAGS)

# make bench-regions REGIONS="FOLDER-OR-FILE...": how long regions take to compile, and how large their
# code is. The folder is one of the code cache that machines have filled, so that compilers are compared
# by the same regions.
REGIONS ?=
$(BUILD)/bench/region_speed: LIBS += $(LIBS_JITD)
$(BUILD)/bench/region_speed: $(call objects,tests/bench/region_speed.c) $(LIB_JITD) $(LIB_SHARED)
	@mkdir -p $(@D)
	$(QUIET_LD)$(CC) $(LDFLAGS) -o $@ $(filter %.o,$^) \
	    -Wl,--start-group $(filter %.a,$^) -Wl,--end-group $(LIBS)

# How many guest instructions a second the engine runs, without machine and kernel.
$(BUILD)/bench/interp_speed $(BUILD)/bench/workload_speed: LIBS += $(LIBS_VCPU) $(LIBS_JITD)
$(BUILD)/bench/interp_speed $(BUILD)/bench/workload_speed: $(BUILD)/bench/%: \
    $(BUILD)/obj/tests/bench/%.o $(call objects,tests/lockstep/optimiser.c) \
    $(LIB_VCPU) $(LIB_JITD) $(LIB_SHARED)
	@mkdir -p $(@D)
	$(QUIET_LD)$(CC) $(LDFLAGS) -o $@ $(filter %.o,$^) \
	    -Wl,--start-group $(filter %.a,$^) -Wl,--end-group $(LIBS)

# The workloads without a kernel: build/bench/workload_speed build/bench/workload.bin [NAME...]. Of libc they take what
# needs nothing of a system; the rest of it is not linked.
WORKLOAD_SOURCES := tests/bench/workload_guest.c tests/guests/bench/integer.c tests/guests/bench/fp.c
$(BUILD)/bench/workload_speed: $(BUILD)/bench/workload.bin
$(BUILD)/bench/workload.bin: $(WORKLOAD_SOURCES) tests/bench/workload_guest.ld tests/guests/bench/bench.h
	@mkdir -p $(@D)
	$(QUIET_GUEST)$(RISCV64_CC) -std=gnu17 -O2 -g0 -static -Wall -Wextra -ffp-contract=off -mcmodel=medany -no-pie -fno-pie \
	    -fno-builtin-malloc -nostartfiles -I. -Wl,-T,tests/bench/workload_guest.ld,--build-id=none,-z,muldefs \
	    -Wl,--unresolved-symbols=ignore-all,--no-warn-rwx-segments -o $@.elf $(WORKLOAD_SOURCES) -lm
	@riscv64-linux-gnu-objcopy -O binary $@.elf $@

.PHONY: bench-regions
bench-regions:
	@$(MAKE) --no-print-directory $(BUILD)/bench/region_speed >&2
	@$(BUILD)/bench/region_speed $(REGIONS)

# make bench-recovery [KILLS=200] [KINDS="disk rng..."]: how long a device is away when its process is killed, each
# kind alone and all at once. The runtime directory is in memory, as /run is.
KILLS ?= 200
KINDS ?= serial console disk rng rtc all
.PHONY: bench-recovery
bench-recovery:
	@{ $(MAKE) --no-print-directory deps && $(MAKE) --no-print-directory all guests test-guests; } >&2
	@for kind in $(KINDS); do echo "== $$kind"; BUILD=$(BUILD) KILLS=$(KILLS) STOPS=0 TOGETHER=0 \
	    TMPDIR=$$(test -d /dev/shm && echo /dev/shm || echo /tmp) \
	    tests/integration/test_recovery.sh $${kind#all} | grep -E 'service again|^not ok'; done
