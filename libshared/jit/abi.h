/*
 * Whether code that one program made may run in another: both must have been built from the same
 * meaning of instructions, layout of the CPU's state and runtime (runtime.h). They are of one
 * package, but a package may be replaced while machines run: jitd is then started anew from the new
 * one, vcpud is not.
 */
#ifndef POLYVISOR_JIT_ABI_H
#define POLYVISOR_JIT_ABI_H

/* Constant text. The build makes it of the sources (tools/source-digest): nobody has to remember to
 * raise a number. */
const char *region_abi(void);

#endif
