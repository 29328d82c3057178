# The agent that runs in guests: a small static program, cross-compiled for each guest architecture.
# Each has its compiler's name in Debian; that of the host is native there.

AGENT_SOURCES := $(sort $(wildcard agent/*.c))
AGENT_HEADERS := $(sort $(wildcard agent/*.h)) libshared/agent/protocol.h
AGENT_ARCHS := riscv64 arm64 x86_64
AGENT_CC_riscv64 := riscv64-linux-gnu-gcc
AGENT_CC_arm64 := aarch64-linux-gnu-gcc
AGENT_CC_x86_64 := x86_64-linux-gnu-gcc
AGENTS := $(AGENT_ARCHS:%=build/agent/%/polyvisor-agent)
AGENT_CFLAGS := -D_GNU_SOURCE -DPOLYVISOR_VERSION='"$(VERSION)"' -std=gnu17 -Os -g0 -static -I. -Wall -Wextra -Werror \
    -Wshadow -Wstrict-prototypes -Wmissing-prototypes -ffunction-sections -fdata-sections -Wl,--gc-sections -s

build/agent/%/polyvisor-agent: $(AGENT_SOURCES) $(AGENT_HEADERS) tools/agent.mk
	@mkdir -p $(@D)
	$(QUIET_LD)$(AGENT_CC_$*) $(AGENT_CFLAGS) -o $@ $(AGENT_SOURCES)

.PHONY: agent
agent: $(AGENTS)
