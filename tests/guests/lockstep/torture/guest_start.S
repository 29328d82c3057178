/*
 * Entry and trap vectors of the torture guests. In: a0 = hart, a1 = number of harts, plus 256 when
 * started in machine mode (then guest_machine_mode is set). Each hart has a page of stack and a trap frame with a stack above it.
 */
#define FRAME_PC (32 * 8)
#define FRAME_CAUSE (33 * 8)
#define FRAME_VALUE (34 * 8)
#define STACK_BYTES 16384

.section .text.start, "ax"
.globl _start
_start:
    la sp, guest_stacks
    li t0, STACK_BYTES
    addi t1, a0, 1
    mul t1, t1, t0
    add sp, sp, t1              /* the hart's stack ends here */
    la t2, guest_frames
    li t0, 4096
    mul t0, t0, a0
    add t2, t2, t0              /* and this is its frame */
    mv tp, a0
    li t0, 0x6000               /* floating point on */
    andi t1, a1, 256
    la t3, guest_machine_mode
    sd t1, 0(t3)
    bnez t1, 1f
    csrw sscratch, t2
    csrs sstatus, t0
    la t1, supervisor_vector
    csrw stvec, t1
    j 2f
1:  csrw mscratch, t2
    csrs mstatus, t0
    la t1, machine_vector
    csrw mtvec, t1
2:  andi a1, a1, 255
    call guest_main
    li t0, 0x10000000
    sd a0, 0(t0)
3:  j 3b

.macro VECTOR name, scratch, epc, cause, tval, return
    .balign 4
\name:
    csrrw t6, \scratch, t6
    sd x1, 8(t6)
    sd x2, 16(t6)
    sd x3, 24(t6)
    sd x4, 32(t6)
    sd x5, 40(t6)
    sd x6, 48(t6)
    sd x7, 56(t6)
    sd x8, 64(t6)
    sd x9, 72(t6)
    sd x10, 80(t6)
    sd x11, 88(t6)
    sd x12, 96(t6)
    sd x13, 104(t6)
    sd x14, 112(t6)
    sd x15, 120(t6)
    sd x16, 128(t6)
    sd x17, 136(t6)
    sd x18, 144(t6)
    sd x19, 152(t6)
    sd x20, 160(t6)
    sd x21, 168(t6)
    sd x22, 176(t6)
    sd x23, 184(t6)
    sd x24, 192(t6)
    sd x25, 200(t6)
    sd x26, 208(t6)
    sd x27, 216(t6)
    sd x28, 224(t6)
    sd x29, 232(t6)
    sd x30, 240(t6)
    csrrw t5, \scratch, t6
    sd t5, 248(t6)
    csrr t0, \epc
    sd t0, FRAME_PC(t6)
    csrr t0, \cause
    sd t0, FRAME_CAUSE(t6)
    csrr t0, \tval
    sd t0, FRAME_VALUE(t6)
    li t0, 4096
    add sp, t6, t0
    mv a0, t6
    call guest_trap
    csrr t6, \scratch
    ld t0, FRAME_PC(t6)
    csrw \epc, t0
    ld x1, 8(t6)
    ld x2, 16(t6)
    ld x3, 24(t6)
    ld x4, 32(t6)
    ld x5, 40(t6)
    ld x6, 48(t6)
    ld x7, 56(t6)
    ld x8, 64(t6)
    ld x9, 72(t6)
    ld x10, 80(t6)
    ld x11, 88(t6)
    ld x12, 96(t6)
    ld x13, 104(t6)
    ld x14, 112(t6)
    ld x15, 120(t6)
    ld x16, 128(t6)
    ld x17, 136(t6)
    ld x18, 144(t6)
    ld x19, 152(t6)
    ld x20, 160(t6)
    ld x21, 168(t6)
    ld x22, 176(t6)
    ld x23, 184(t6)
    ld x24, 192(t6)
    ld x25, 200(t6)
    ld x26, 208(t6)
    ld x27, 216(t6)
    ld x28, 224(t6)
    ld x29, 232(t6)
    ld x30, 240(t6)
    ld x31, 248(t6)
    \return
.endm

VECTOR supervisor_vector, sscratch, sepc, scause, stval, sret
VECTOR machine_vector, mscratch, mepc, mcause, mtval, mret
