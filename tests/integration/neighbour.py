"""Two machines. The devices of one are killed again and again, in every second of short periods; the
other does the same work all the time and tells how long each round took. Neither what it computes
nor how long it takes may tell the two kinds of periods apart.

Usage: neighbour.py VMCTL VMMD-PID GUEST WORK PERIODS SECONDS

The bound is statistical and relative: labels of periods are exchanged at random, and only if the real
difference is larger than all but one in a thousand of such, and more than a quarter, it is one.
"""
import os
import random
import re
import signal
import statistics
import sys
import time

from machines import PATIENCE, Console, Events, Shell, begin, check, failed, process_of, vmctl

GUEST, WORK = sys.argv[3], sys.argv[4]
PERIODS, SECONDS = int(sys.argv[5]), float(sys.argv[6])
KILLED, QUIET = "killed", "quiet"
DEVICES = ("disk0", "rng0", "console0", "serial0", "rtc0")
EXCHANGES = 4000
LARGE = 1.25


def start(name):
    image = os.path.join(WORK, f"{name}.img")
    with open(image, "wb") as file:
        file.truncate(1 << 20)
    vmctl("create", name, "--kernel", f"{GUEST}/vmlinux", "--initrd", f"{GUEST}/test-initrd.cpio.gz", "--memory", "160M",
          "--append", "quiet script=commands", "--disk", f"path={image}")
    vmctl("start", name)
    shell = Shell(name)
    shell.answer()
    return shell


def processes(name):
    return {device: process_of(name, device) for device in DEVICES}


def kill_for(seconds, events):
    """Kill the neighbour's devices in turn, each when the one before is back. How many: two at least.
    Starting processes takes time of a processor that a busy host may have to take from the other machine: a small part."""
    end, killed = time.monotonic() + seconds, 0
    while time.monotonic() < end or killed < 2:
        device = DEVICES[killed % len(DEVICES)]
        pid, mark, start_of_kill = process_of(KILLED, device), events.mark(), time.monotonic()
        if pid:
            os.kill(pid, signal.SIGKILL)
            killed += 1
            events.wait(mark, "device-restarted", f"devd/{device}", PATIENCE, KILLED)
        time.sleep(max(0.15, 8 * (time.monotonic() - start_of_kill)))
    return killed


def rounds_until_now(console, patience=0.0):
    """(number, nanoseconds, checksum) of all rounds told so far."""
    rounds = []
    while True:
        try:
            line = console.lines.get(timeout=patience) if patience and not rounds else console.lines.get_nowait()
        except Exception:
            return rounds
        told = re.fullmatch(r"round (\d+) (\d+) ([0-9a-f]{16})", line or "")
        if not told:
            raise RuntimeError(f"the guest said: {line}")
        rounds.append((int(told[1]), int(told[2]), told[3]))


def difference(medians, labels):
    """How much slower the periods are in which the neighbour's devices were killed."""
    disturbed = [m for m, label in zip(medians, labels) if label]
    plain = [m for m, label in zip(medians, labels) if not label]
    return statistics.median(disturbed) / statistics.median(plain)


def main():
    begin(sys.argv[1], int(sys.argv[2]))
    events = Events()
    start(KILLED).ask("sectors /dev/vda >/tmp/sectors.out 2>&1 & randomness >/dev/null 2>&1 &")
    shell = start(QUIET)
    shell.ask("dmesg -n 1; dmesg >/tmp/dmesg.before")
    before = processes(QUIET)
    shell.say("rounds /dev/vda")
    rounds_until_now(shell, PATIENCE)
    time.sleep(2)  # until its code is compiled
    everything = rounds_until_now(shell)
    medians, labels, deaths = [], [], 0
    for period in range(PERIODS):
        disturbed = period % 2 == 1
        if disturbed:
            deaths += kill_for(SECONDS, events)
        else:
            time.sleep(SECONDS)
        rounds = rounds_until_now(shell, PATIENCE)
        everything += rounds
        medians.append(statistics.median(ns for _, ns, _ in rounds))
        labels.append(disturbed)
    after = processes(QUIET)
    real = difference(medians, labels)
    shuffled = []
    for _ in range(EXCHANGES):
        random.shuffle(labels)
        shuffled.append(difference(medians, labels))
    share = sum(other >= real for other in shuffled) / EXCHANGES
    print(f"# {len(everything)} rounds of {statistics.median(medians) / 1e6:.1f} ms (median), {deaths} deaths next door: "
          f"{100 * (real - 1):+.1f} % (by chance: {100 * share:.1f} % of exchanges are as large)")
    check("the neighbour's devices were killed", deaths >= PERIODS)
    check("the other machine's timing does not tell when", share > 0.001 or real < LARGE, f"{real} {share} {medians}")
    numbers = [number for number, _, _ in everything]
    check("it told every round once", numbers == list(range(numbers[0], numbers[0] + len(numbers))))
    sums = {number % 4: checksum for number, _, checksum in everything}
    check("it computed the same all the time", len(set(sums.values())) == 4 and
          all(sums[number % 4] == checksum for number, _, checksum in everything))
    check("its processes are the same", before == after and all(before.values()), f"{before} {after}")
    check("nothing was told of it", events.count("device-died", QUIET) == 0 and events.count("device-timeout", QUIET) == 0)
    watcher = Console(QUIET, "console0")  # it can be reached as ever
    check("its other console can be reached", watcher.process.poll() is None)
    for name in (KILLED, QUIET):
        vmctl("kill", name)
        vmctl("rm", name)
    events.process.terminate()
    return failed()


sys.exit(main())
