# Fuzzers: every tests/fuzz/fuzz_*.c is one libFuzzer program. `make fuzz FUZZ_SECONDS=60` builds all
# with sanitizers and runs each that long; what it found earlier is kept in build/fuzz/<name>/.

FUZZ_SECONDS ?= 60
FUZZ_SAN := fuzzer-no-link,address,undefined
FUZZ_SOURCES := $(sort $(wildcard tests/fuzz/fuzz_*.c))
FUZZ_PROGRAMS := $(FUZZ_SOURCES:tests/fuzz/%.c=$(BUILD)/fuzz/%)

$(BUILD)/fuzz/%: $(BUILD)/obj/tests/fuzz/%.o $(LIB_DEVD) $(LIB_SHARED)
	@mkdir -p $(@D)
	$(QUIET_LD)$(CC) $(LDFLAGS) -fsanitize=fuzzer -o $@ $< -Wl,--whole-archive $(LIB_DEVD) \
	    -Wl,--no-whole-archive $(LIB_SHARED) $(LIBS) $(LIBS_DEVD)

.PHONY: fuzz fuzz-programs
fuzz-programs: $(FUZZ_PROGRAMS)

fuzz:
	@$(MAKE) --no-print-directory SAN=$(FUZZ_SAN) fuzz-programs
	@for program in $(notdir $(FUZZ_SOURCES:.c=)); do \
	    mkdir -p build/fuzz/$$program && \
	    POLYVISOR_LOG=error build/san-$(subst $(comma),-,$(FUZZ_SAN))/fuzz/$$program \
	        -max_total_time=$(FUZZ_SECONDS) -len_control=0 -max_len=1000 -timeout=25 \
	        -artifact_prefix=build/fuzz/$$program- build/fuzz/$$program || exit 1; \
	done
