/*
 * The host that the compiler makes code for. HAS_BASELINE: there is a back end for it.
 *
 * host_<host>.h names the registers with fixed roles (REG_CPU, REG_SCRATCH and the host's own),
 * says how many registers a file has (HOST_REGISTERS) and
 * how far its jumps reach (HOST_CODE_BYTES_MAX), which optional instructions matter (struct
 * host_features), and includes the assembler.
 */
#ifndef POLYVISOR_VCPU_ENGINE_BASELINE_HOST_H
#define POLYVISOR_VCPU_ENGINE_BASELINE_HOST_H

#if defined(__x86_64__)
#define HAS_BASELINE 1
#include "vmmd/vcpu/engine/baseline/host_x86_64.h"
#elif defined(__aarch64__)
#define HAS_BASELINE 1
#include "vmmd/vcpu/engine/baseline/host_arm64.h"
#else
#define HAS_BASELINE 0
#endif

#endif
