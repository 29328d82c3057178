"""The host's side of the console ports' test.

ports.py write STOP            numbered lines to standard output until file STOP is there, then "end"
ports.py check FILE            FILE has numbered lines, none missing and none twice, then "end"
ports.py talk SOCKET TEXT      say a line to the guest on a plain socket, print what it answers
ports.py sizes PROGRAM...      run it in a terminal of changing size, with a shell behind that hears of each
"""
import fcntl
import os
import pty
import select
import socket
import struct
import sys
import termios
import time


def line(number):
    return b"line %d %s\n" % (number, b"x" * (number % 60))


def write(stop):
    number = 0
    while not os.path.exists(stop):
        number += 1
        os.write(1, line(number))
    os.write(1, b"end\n")


def check(path):
    number = 0
    with open(path, "rb") as file:
        for text in file:
            text = text.replace(b"\r", b"")
            if text == b"end\n":
                print(number)
                sys.exit(0 if number > 0 else "there are no lines")
            number += 1
            if text != line(number):
                sys.exit("line %d is %r" % (number, text[:80]))
    sys.exit("it ends after line %d" % number)


def talk(path, text):
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(240)
        connection.connect(path)
        connection.sendall(text.encode() + b"\n")
        answer = b""
        while not answer.endswith(b"\n"):
            part = connection.recv(4096)
            if not part:
                break
            answer += part
        sys.stdout.write(answer.decode())


def sizes(*program):
    pid, terminal = pty.fork()
    if pid == 0:
        os.execv(program[0], program)
    for rows, columns in ((33, 101), (44, 111), (7, 300)):
        fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
        seen, end = b"", time.monotonic() + 240
        while b"%d %d\r\n" % (rows, columns) not in seen:
            if time.monotonic() > end:
                sys.exit("never %d rows and %d columns: %r" % (rows, columns, seen[-300:]))
            os.write(terminal, b"stty size\r")
            while select.select([terminal], [], [], 0.5)[0]:
                seen += os.read(terminal, 4096)
    os.write(terminal, b"\x1d")
    try:
        while os.read(terminal, 4096):
            pass
    except OSError:  # its other end is closed
        pass
    sys.exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))


{"sizes": sizes, "write": write, "check": check, "talk": talk}[sys.argv[1]](*sys.argv[2:])
