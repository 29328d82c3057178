# The agent that runs in guests: a small static program, cross-compiled for each guest architecture.

AGENT_SOURCES := $(sort $(wildcard agent/*.c))
AGENT_HEADERS := $(sort $(wildcard agent/*.h)) libshared/agent/protocol.h
AGENT_RISCV64 := build/agent/riscv64/polyvisor-agent
AGENT_CFLAGS := -D_GNU_SOURCE -std=gnu17 -Os -g0 -static -I. -Wall -Wextra -Werror -Wshadow -Wstrict-prototypes \
    -Wmissing-prototypes -ffunction-sections -fdata-sections -Wl,--gc-sections -s

$(AGENT_RISCV64): $(AGENT_SOURCES) $(AGENT_HEADERS)
	@mkdir -p $(@D)
	$(RISCV64_CC) $(AGENT_CFLAGS) -o $@ $(AGENT_SOURCES)

.PHONY: agent
agent: $(AGENT_RISCV64)
