# make bench [ENGINE=interp|baseline|auto] [BENCH_FLAGS=--json]

ENGINE ?= auto
.PHONY: bench
bench:
	@{ $(MAKE) --no-print-directory deps && $(MAKE) --no-print-directory all guests test-guests; } >&2
	@python3 tests/bench/bench.py --vmctl $(BUILD)/bin/vmctl --engine $(ENGINE) \
	    --kernel $(RISCV64)/vmlinux --initrd $(RISCV64)/test-initrd.cpio.gz $(BENCH_FLAGS)
