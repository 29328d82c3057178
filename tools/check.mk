# Tests: every tests/unit/**/test_*.c is one Check program; every tests/integration/test_*.sh one script.

UNIT_SOURCES := $(sort $(shell find tests/unit -name 'test_*.c'))
UNIT_PROGRAMS := $(UNIT_SOURCES:tests/%.c=$(BUILD)/tests/%)

$(BUILD)/tests/unit/%: $(BUILD)/obj/tests/unit/%.o $(LIB_VCPU) $(LIB_DEVD) $(LIB_VMMD) $(LIB_CLI) $(LIB_SHARED)
	@mkdir -p $(@D)
	$(QUIET_LD)$(CC) $(LDFLAGS) -o $@ $(filter %.o,$^) -Wl,--start-group $(filter %.a,$^) -Wl,--end-group \
	    -lcheck -lsubunit -lrt $(LIBS)

.PHONY: unit
unit: $(UNIT_PROGRAMS)
