# A machine's whole life in ten instructions: a line on the serial port, and power-off. What a start
# and an end cost is measured with it (tests/bench/bench.py).
    .globl _start
_start:
    li a0, 0x10000000
    li a1, '!'
    sb a1, 0(a0)
    li a1, '\n'
    sb a1, 0(a0)
    li a0, 0x100000 # the test device: power-off
    li a1, 0x5555
    sw a1, 0(a0)
1:  j 1b
