# What is compiled from what. Sources are found by folder: a new file needs no change here.

find_sources = $(sort $(shell find $(1) -name '*.c' $(2)))

PROTO_FILES := $(sort $(wildcard proto/*.proto))
PROTO_SOURCES := $(PROTO_FILES:%.proto=$(BUILD)/gen/%.pb-c.c)
PROTO_HEADERS := $(PROTO_SOURCES:.c=.h)

SHARED_SOURCES := $(call find_sources,libshared)
VCPU_SOURCES := $(call find_sources,vmmd/vcpu)
VMMD_SOURCES := $(call find_sources,vmmd,-not -path 'vmmd/vcpu/*')
DEVD_SOURCES := $(call find_sources,devd,-not -path 'devd/block/nbd/*')
NBD_SOURCES := $(call find_sources,devd/block/nbd)
CONNECTD_SOURCES := $(call find_sources,connectd)
CLI_SOURCES := $(call find_sources,cli)
JITD_SOURCES := $(call find_sources,jitd)

# What generated code depends on (tools/source-digest). Made each time, changed only when it has to be.
SOURCE_DIGEST := $(BUILD)/gen/source_digest.h
.PHONY: source-digest
$(SOURCE_DIGEST): source-digest
	@tools/source-digest $@

objects = $(patsubst %.c,$(BUILD)/obj/%.o,$(1))
archive_objects = $(call objects,$(filter-out %/main.c,$(1)))
PROTO_OBJECTS := $(PROTO_SOURCES:$(BUILD)/gen/%.c=$(BUILD)/obj/gen/%.o)

# One archive a component, its main.c left out, so that the tests link exactly what ships.
LIB_SHARED := $(BUILD)/lib/libshared.a
LIB_VCPU := $(BUILD)/lib/libvcpu.a
LIB_VMMD := $(BUILD)/lib/libvmmd.a
LIB_DEVD := $(BUILD)/lib/libdevd.a
LIB_CLI := $(BUILD)/lib/libcli.a
LIB_NBD := $(BUILD)/lib/libnbddisk.a
LIB_CONNECTD := $(BUILD)/lib/libconnectd.a
LIB_JITD := $(BUILD)/lib/libjitd.a

$(LIB_SHARED): $(call archive_objects,$(SHARED_SOURCES)) $(PROTO_OBJECTS)
$(LIB_VCPU): $(call archive_objects,$(VCPU_SOURCES))
$(LIB_VMMD): $(call archive_objects,$(VMMD_SOURCES))
$(LIB_DEVD): $(call archive_objects,$(DEVD_SOURCES))
$(LIB_NBD): $(call archive_objects,$(NBD_SOURCES))
$(LIB_CONNECTD): $(call archive_objects,$(CONNECTD_SOURCES))
$(LIB_CLI): $(call archive_objects,$(CLI_SOURCES))

$(BUILD)/lib/libjitd.a: $(call archive_objects,$(JITD_SOURCES))

$(BUILD)/lib/%.a:
	@mkdir -p $(@D)
	@rm -f $@
	$(QUIET_AR)$(AR) rcs $@ $^

LIBS := -levent -levent_pthreads -lnanomsg -lprotobuf-c -lfdt -ljansson -lxxhash -lseccomp -lm
# Only vmctl makes archives: disks for cloud-init.
LIBS_CLI := -larchive
# Only vcpud disassembles host code (and the tests, which are linked with all of it).
LIBS_VCPU := -lcapstone
# Compressed parts of disk images: devd and vmctl.
LIBS_IMAGES := -lz -lzstd
# Only devd has a network's router in it, and disks.
LIBS_DEVD := -lslirp -luring $(LIBS_IMAGES)
# Only the devd of network disks, because libnbd brings TLS and XML along.
LIBS_NBD := -lnbd
# Only jitd, and the tests of what it makes, are linked with LLVM.
LLVM := /usr/lib/llvm-19
LIBS_JITD := -L$(LLVM)/lib -Wl,--as-needed -lLLVM-19 -Wl,--no-as-needed
DAEMONS := vmmd vcpud devd devd-nbd connectd jitd
ifneq ($(WITHOUT_LLVM),)
LIB_JITD :=
LIBS_JITD :=
DAEMONS := vmmd vcpud devd devd-nbd connectd
endif
PROGRAMS := $(addprefix $(BUILD)/bin/,$(DAEMONS) vmctl)

$(BUILD)/bin/vmmd: $(call objects,vmmd/main.c) $(LIB_VMMD) $(LIB_SHARED)
$(BUILD)/bin/vcpud: $(call objects,vmmd/vcpu/main.c) $(LIB_VCPU) $(LIB_SHARED)
$(BUILD)/bin/devd: $(call objects,devd/main.c) $(LIB_DEVD) $(LIB_SHARED)
$(BUILD)/bin/devd-nbd: $(call objects,devd/main.c) $(LIB_DEVD) $(LIB_NBD) $(LIB_SHARED)
$(BUILD)/bin/connectd: $(call objects,connectd/main.c) $(LIB_CONNECTD) $(LIB_SHARED)
$(BUILD)/bin/jitd: $(call objects,jitd/main.c) $(LIB_JITD) $(LIB_SHARED)
$(BUILD)/bin/vmctl: $(call objects,cli/main.c) $(LIB_CLI) $(LIB_SHARED)

$(BUILD)/bin/vcpud: LIBS += $(LIBS_VCPU)
$(BUILD)/bin/vmctl: LIBS += $(LIBS_IMAGES)
$(BUILD)/bin/jitd: LIBS += $(LIBS_JITD)
$(BUILD)/bin/devd: LIBS += $(LIBS_DEVD)
$(BUILD)/bin/vmctl: LIBS += $(LIBS_CLI)

# What vmctl looks for beside its folder, as tools/install.mk puts it.
SHARE := $(BUILD)/share/polyvisor
SHARED_FILES := $(SHARE)/image $(SHARE)/agent
$(SHARE)/image $(SHARE)/agent:
	@mkdir -p $(@D)
	@ln -sfn $(CURDIR)/$(if $(filter %/agent,$@),build/agent,image) $@
$(BUILD)/bin/devd-nbd: LIBS += $(LIBS_DEVD) $(LIBS_NBD)

# Devices and commands register themselves in linker sections, so whole archives are linked.
$(PROGRAMS):
	@mkdir -p $(@D)
	$(QUIET_LD)$(CC) $(LDFLAGS) -o $@ $(filter %.o,$^) -Wl,--whole-archive \
	    $(filter-out $(LIB_SHARED),$(filter %.a,$^)) -Wl,--no-whole-archive $(LIB_SHARED) $(LIBS)

$(BUILD)/obj/jitd/llvm/%.o: CPPFLAGS += -isystem $(LLVM)/include

# Interpreter handlers are a few instructions each: a frame pointer would cost them a tenth.
$(BUILD)/obj/vmmd/vcpu/engine/interp_%.o: CFLAGS += -fomit-frame-pointer

$(BUILD)/obj/%.o: %.c | $(PROTO_HEADERS) $(SOURCE_DIGEST)
	@mkdir -p $(@D)
	$(QUIET_CC)$(CC) $(CPPFLAGS) $(CFLAGS) -MMD -MP -c -o $@ $<

$(BUILD)/obj/gen/%.o: $(BUILD)/gen/%.c
	@mkdir -p $(@D)
	$(QUIET_CC)$(CC) $(CPPFLAGS) $(CFLAGS) -MMD -MP -c -o $@ $<

$(BUILD)/gen/%.pb-c.c $(BUILD)/gen/%.pb-c.h &: %.proto
	@mkdir -p $(BUILD)/gen
	$(QUIET_GEN)protoc-c --c_out=$(BUILD)/gen $<

ifeq ($(V),)
QUIET_CC = @echo "  CC    $<";
QUIET_AR = @echo "  AR    $@";
QUIET_LD = @echo "  LD    $@";
QUIET_GEN = @echo "  GEN   $@";
endif

-include $(shell find $(BUILD)/obj -name '*.d' 2>/dev/null)
