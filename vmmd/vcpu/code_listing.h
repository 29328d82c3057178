/*
 * Guest code, the IR it becomes and the host code that runs it, as a message for people
 * (proto/code.proto). Main thread, while the CPUs are outside guest code.
 */
#ifndef POLYVISOR_VCPU_CODE_LISTING_H
#define POLYVISOR_VCPU_CODE_LISTING_H

#include "libshared/base/error.h"
#include "proto/code.pb-c.h"
#include "vmmd/vcpu/engine/engine.h"

/* What was asked for, from `cpu`'s point of view. Free it with
 * polyvisor__code_listing__free_unpacked. NULL with *err set: NOT_FOUND when the first block's
 * address is not mapped (a later block's ends the list), MEMORY, UNSUPPORTED. The message is
 * bounded: blocks say when they were cut. */
Polyvisor__CodeListing *code_listing_create(struct cpu *cpu, const Polyvisor__CodeRequest *request,
                                            struct error *err);

#endif
