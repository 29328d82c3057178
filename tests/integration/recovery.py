"""Kill and stop device processes of a running machine while the guest uses them, and look whether
anything was lost, done twice, or noticed by the guest. What each load proves is in its class.

Started by test_recovery.sh, which has a vmmd running. Usage:

  recovery.py VMCTL VMMD-PID GUEST WORK KILLS STOPS KIND...

Prints lines for tests/run, and figures as "# ..." lines.
"""
import json
import mmap
import os
import random
import re
import signal
import statistics
import struct
import subprocess
import sys
import threading
import time

from machines import PATIENCE, Console, Events, Shell, begin, check, failed, process_of, vmctl

VMCTL, GUEST, WORK = sys.argv[1], sys.argv[3], sys.argv[4]
KILLS, STOPS, KINDS = int(sys.argv[5]), int(sys.argv[6]), sys.argv[7:]
MACHINE = "recovery"
DISK = os.environ.get("DISK", "")  # how disks are opened: ",cache=none,aio=threads"
OPTIONS = os.environ.get("OPTIONS", "").split()  # of vmctl create: "--irqchip plic"
TOGETHER = int(os.environ.get("TOGETHER", "1"))  # how often all devices are struck at the same instant


class Load:
    """Work for a device in the guest, from `start` until the file /tmp/stop is there."""
    name = ""
    devices = ()
    options = ()
    modules = ""
    command = ""  # prints what `judge` gets

    def prepare(self):
        pass

    def start(self, shell):
        status, output = shell.ask(f"{{ {self.command}; echo status-of-load $?; }} >/tmp/{self.name}.out 2>&1 &")
        if status != 0:
            raise RuntimeError(output)

    def stop(self, shell):
        pass

    def finish(self, shell):
        _, output = shell.ask(f"cat /tmp/{self.name}.out")
        self.judge(output)

    def judge(self, output):
        check(f"{self.name}: the load ended well", output.endswith("status-of-load 0"), output[-2000:])


class Fio(Load):
    """Debian's fio with direct I/O reads back and verifies all it wrote."""
    name = "fio"
    devices = ("disk0", "disk1")
    command = ("n=0; s=0; while [ ! -e /tmp/stop ] && [ $s -eq 0 ]; do chroot /mnt /usr/bin/fio --name=verify --thread --filename=/dev/vdb --direct=1 "
               "--ioengine=libaio --iodepth=16 --rw=randrw --rwmixread=30 --bs=8k --size=4M --verify=crc32c "
               "--verify_fatal=1 --randrepeat=0 --minimal >/tmp/fio.round 2>&1 || { s=$?; cat /tmp/fio.round; }; "
               "n=$((n + 1)); done; echo rounds $n; [ $s -eq 0 ]")

    def prepare(self):
        image = os.path.join(WORK, "fio.img")
        with open(image, "wb") as file:
            file.truncate(4 << 20)
        self.options = ("--disk", f"path={GUEST}/fio.img,readonly", "--disk", f"path={image}{DISK}")

    def start(self, shell):
        status, output = shell.ask("load-modules ext4; mount -t ext4 -o ro /dev/vda /mnt && mount -t proc proc /mnt/proc && "
                                   "mount -t sysfs sys /mnt/sys && mount -t devtmpfs dev /mnt/dev && mount -t tmpfs tmp /mnt/tmp")
        if status != 0:
            raise RuntimeError(output)
        super().start(shell)

    def judge(self, output):
        rounds = re.search(r"^rounds (\d+)$", output, re.M)
        check("fio: every round of writing and verifying was right",
              output.endswith("status-of-load 0") and rounds and int(rounds[1]) > 0, output[-2000:])
        print(f"# fio: {rounds[1] if rounds else 0} rounds of 4 MiB")


class Sectors(Load):
    """The host keeps a log of what is on the disk while the guest writes numbered versions of its
    blocks (tests/guests/programs/sectors.c): a version that goes down is a write that was done
    again after a newer one; one that is less than what the guest knows to be done was lost."""
    name = "sectors"
    devices = ("disk2",)
    command = "sectors /dev/vdc"
    BLOCKS, BLOCK, SECTOR = 256, 4096, 512
    MAGIC = 0x524f544345535650

    def prepare(self):
        self.image = os.path.join(WORK, "sectors.img")
        with open(self.image, "wb") as file:
            file.truncate(self.BLOCKS * self.BLOCK)
        self.options = ("--disk", f"path={self.image}{DISK}")
        self.log = []  # (time, block, version before, version)
        self.looks = 0
        self.ended = threading.Event()
        self.watcher = threading.Thread(target=self.watch, daemon=True)

    def start(self, shell):
        self.watcher.start()
        super().start(shell)

    def watch(self):
        known = [0] * self.BLOCKS
        with open(self.image, "rb") as file, mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as view:
            last = False
            while not last:
                last = self.ended.is_set()
                for block in range(self.BLOCKS):
                    # A sector that shows an old write is as good as any: not always the first.
                    at = block * self.BLOCK + (self.looks + block) % 8 * self.SECTOR
                    version = struct.unpack_from("<Q", view, at + 16)[0]
                    if version != known[block]:
                        self.log.append((time.monotonic(), block, known[block], version))
                        known[block] = max(version, known[block])
                self.looks += 1
                time.sleep(0.002)

    def judge(self, output):
        super().judge(output)
        self.ended.set()
        self.watcher.join()
        counts = re.search(r"^writes (\d+) reads (\d+) flushes (\d+) wrong (\d+)$", output, re.M)
        versions = [int(v) for v in (re.search(r"^versions((?: \d+)+)$", output, re.M) or ["", ""])[1].split()]
        check("sectors: the guest read what it had written",
              counts and int(counts[1]) > 0 and counts[4] == "0", output[-2000:])
        with open(self.image, "rb") as file:
            data = file.read()
        wrong = []
        for block, version in enumerate(versions):
            for sector in range(self.BLOCK // self.SECTOR):
                head = struct.unpack_from("<QQQ", data, block * self.BLOCK + sector * self.SECTOR)
                if version and head != (self.MAGIC, block, version):
                    wrong.append((block, sector, head, version))
        check("sectors: each block on the host is the last one written", len(versions) == self.BLOCKS and not wrong,
              str(wrong[:5]))
        # One block is read sector by sector while it is written: at most one version apart.
        back = [entry for entry in self.log if entry[3] < entry[2] - 1]
        check("sectors: the host's log shows no write done again after a newer one", not back, str(back[:5]))
        if counts:
            print(f"# sectors: {counts[1]} writes, {counts[2]} reads, {counts[3]} flushes; "
                  f"the host saw {len(self.log)} versions in {self.looks} looks")


class Randomness(Load):
    """No read brings zeroes or bytes that were there before."""
    name = "rng"
    devices = ("rng0",)
    command = "randomness"

    def judge(self, output):
        super().judge(output)
        print(f"# rng: {output.splitlines()[0] if output else ''}")


class Alarms(Load):
    """The clock goes on, and every alarm comes."""
    name = "rtc"
    devices = ("rtc0",)
    command = "alarms"

    def judge(self, output):
        super().judge(output)
        print(f"# rtc: {output.splitlines()[-2] if output else ''}")


def text_of(direction, number):
    return f"{direction} {number} {number * 2654435761 & 0xffffffff:08x}"


class Stream(Load):
    """Numbered lines out of the guest and into it: none is lost, damaged, or there twice."""
    device = ""

    def attach(self, shell):
        self.console = Console(MACHINE, self.devices[0])

    def start(self, shell):
        self.attach(shell)
        self.received, self.wrong, self.sent, self.done = 0, [], 0, None
        self.stopping = threading.Event()
        self.reading = threading.Event()
        self.begin(shell)
        self.threads = [threading.Thread(target=self.hear, daemon=True), threading.Thread(target=self.type, daemon=True)]
        for thread in self.threads:
            thread.start()

    def begin(self, shell):
        super().start(shell)

    def hear(self):
        while self.done is None:
            line = self.console.lines.get(timeout=PATIENCE)
            self.reading.set()
            if line is None or line.startswith("done "):
                self.done = line or "the console was closed"
            elif line != text_of("out", self.received):
                self.wrong.append((self.received, line))
                number = re.match(r"out (\d+) ", line)
                self.received = int(number[1]) + 1 if number else self.received
            else:
                self.received += 1

    def type(self):
        # Before its first line the guest's program has not made its terminal raw: it would echo ours.
        self.reading.wait()
        # Each character of the serial port takes the guest a few register reads, which cost milliseconds where
        # the host is busy: faster typing would leave it no time for anything else.
        while not self.stopping.wait(0.04):
            self.console.say(text_of("in", self.sent))
            self.sent += 1
        self.console.say("end")

    def stop(self, shell):
        self.stopping.set()
        for thread in self.threads:
            thread.join()

    def judge(self, output):
        super().judge(output)
        counts = re.search(r"^sent (\d+) received (\d+) wrong (\d+)$", output, re.M)
        check(f"{self.name}: every line of the guest came once", not self.wrong and
              counts and self.received == int(counts[1]) > 0 and self.done == f"done {counts[1]}",
              f"{self.wrong[:5]} {self.received} {self.done} {output[-300:]}")
        check(f"{self.name}: every line for the guest came once", counts and self.sent == int(counts[2]) > 0 and
              counts[3] == "0", f"{self.sent} {output[-1000:]}")
        print(f"# {self.name}: {self.received} lines from the guest, {self.sent} to it")


class VirtioConsole(Stream):
    name = "console"
    devices = ("console0",)
    command = "stream /dev/hvc0"


class Serial(Stream):
    """On the shell's own terminal, which is of no other use meanwhile."""
    name = "serial"
    devices = ("serial0",)
    command = "stream /dev/ttyS0"

    def attach(self, shell):
        self.console = shell

    def begin(self, shell):
        shell.say(f"{{ {self.command}; echo status-of-load $?; }} >/tmp/{self.name}.out 2>&1")

    def stop(self, shell):
        super().stop(shell)
        shell.answer()


LOADS = {"serial": (Serial,), "console": (VirtioConsole,), "disk": (Fio, Sectors), "rng": (Randomness,), "rtc": (Alarms,)}


def serving(device):
    """The process that serves the device now, not its spare; 0 between two of them."""
    for process in json.loads(vmctl("--json", "show", MACHINE))["processes"]:
        if process["role"] == f"devd/{device}":
            return process["pid"]
    return 0


class Killer:
    """Kills the processes of one kind of device, one after the other, at random moments."""

    def __init__(self, kind, devices, events):
        self.kind, self.devices, self.events = kind, devices, events
        self.times, self.twice_times, self.stop_times, self.own_times, self.lost = [], [], [], [], []
        self.random = random.Random()

    def strike(self, number, device):
        """`number` ends the device's process; then it waits for the next one."""
        pid = serving(device)
        if pid == 0:
            return
        mark = self.events.mark()
        start = time.time_ns()
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            return
        times = self.times if number == signal.SIGKILL else self.stop_times
        if number == signal.SIGKILL and self.random.random() < 0.15:
            struck = self.strike_successor(device, pid)
            if struck:
                pid, mark, start = struck
                times = self.twice_times
        event = self.events.wait(mark, "device-restarted", f"devd/{device}", PATIENCE, MACHINE)
        if event and event["detail"].startswith(f"pid {pid},"):  # told just before it was struck
            event = self.events.wait(mark, "device-restarted", f"devd/{device}", PATIENCE, MACHINE, 1)
        if event is None:
            self.lost.append(device)
        else:
            times.append((event["time_ns"] - start) / 1e6)
            within = re.search(r", (\d+) ms after", event["detail"])
            self.own_times.append(int(within[1]) if within else 0)

    def strike_successor(self, device, old):
        """The next process is killed, too, while it starts: (pid, mark, start) of that, or None."""
        time.sleep(self.random.uniform(0, 0.02))
        pid = process_of(MACHINE, device)
        if pid in (0, old):
            return None
        mark, start = self.events.mark(), time.time_ns()
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            return None
        return pid, mark, start

    def run(self):
        for i in range(KILLS):
            time.sleep(self.random.uniform(0.02, 0.3))
            self.strike(signal.SIGKILL, self.devices[i % len(self.devices)])
        for i in range(STOPS):
            time.sleep(self.random.uniform(0.02, 0.3))
            self.strike(signal.SIGSTOP, self.devices[i % len(self.devices)])

    def judge(self):
        check(f"{self.kind}: {KILLS} killed and {STOPS} stopped processes are replaced", not self.lost, str(self.lost))
        if self.times:
            print_times(f"{self.kind}: {len(self.times)} deaths", self.times)
        if self.twice_times:
            print_times(f"{self.kind}: {len(self.twice_times)} deaths while starting", self.twice_times)
        if self.stop_times:
            print_times(f"{self.kind}: {len(self.stop_times)} stopped", self.stop_times)
        if self.own_times:
            print_times(f"{self.kind}: of both, from when vmmd saw the end", self.own_times)


def print_times(what, times):
    times = sorted(times)
    print(f"# {what}, service again after {statistics.median(times):.0f} ms (median), "
          f"{times[(99 * len(times) - 1) // 100]:.0f} (99 of 100), {times[-1]:.0f} (most), "
          f"{sum(t > 100 for t in times)} over 100 ms")


def strike_all(number, devices, events):
    """All processes at the same instant, while the guest uses all of them: deadlines must not add up."""
    mark = events.mark()
    processes = {device: serving(device) for device in devices}
    for pid in processes.values():
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            pass
    counted = subprocess.run([VMCTL, "stats", MACHINE], stdout=subprocess.DEVNULL, check=False)
    check(f"vcpud answers while all devices are struck (signal {number})", counted.returncode == 0)
    lost = [device for device in devices
            if not events.wait(mark, "device-restarted", f"devd/{device}", PATIENCE, MACHINE)]
    check(f"all processes are replaced (signal {number})", not lost, str(lost))


def in_parallel(functions):
    threads = [threading.Thread(target=function) for function in functions]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


# What the guest's kernel may say without being wrong: only what the loads themselves do.
# The last one: the host was busy.
HARMLESS = re.compile(r"random: crng|EXT4-fs|mounted filesystem|fio.*uses|clocksource: .*skew|hrtimer: interrupt took")


def main():
    loads = [load() for kind in KINDS for load in LOADS[kind]]
    for load in loads:
        load.prepare()
    begin(sys.argv[1], int(sys.argv[2]))
    events = Events()
    vmctl("create", MACHINE, "--kernel", f"{GUEST}/vmlinux", "--initrd", f"{GUEST}/test-initrd.cpio.gz", "--memory", "256M",
          "--cpus", "2", "--append", "quiet script=commands", *OPTIONS, *(option for load in loads for option in load.options))
    vmctl("start", MACHINE)
    shell = Shell(MACHINE)
    shell.answer()
    shell.ask("dmesg -n 1; dmesg >/tmp/dmesg.before")
    for load in sorted(loads, key=lambda load: load.name == "serial"): # takes the shell's terminal
        load.start(shell)
    time.sleep(1)
    killers = [Killer(kind, [d for load in LOADS[kind] for d in load.devices], events) for kind in KINDS]
    in_parallel([killer.run for killer in killers])
    devices = [device for killer in killers for device in killer.devices]
    for _ in range(TOGETHER):
        for number in (signal.SIGSTOP, signal.SIGKILL):
            strike_all(number, devices, events)
    for load in sorted(loads, key=lambda load: load.name != "serial"):
        load.stop(shell)
    shell.ask("touch /tmp/stop")
    shell.ask("wait")
    for killer in killers:
        killer.judge()
    for load in loads:
        load.finish(shell)
    _, said = shell.ask("dmesg | tail -n +$(($(wc -l </tmp/dmesg.before) + 1))")
    said = [line for line in said.splitlines() if not HARMLESS.search(line)]
    check("the guest's kernel has nothing to say", not said, "\n    ".join(said[:20]))
    check("no device was given up", events.count("device-failed", MACHINE) == 0)
    check("no call of the guest missed its deadline", events.count("device-timeout", MACHINE) == 0)
    check("nothing but the stopped devices was taken for hung", events.hung(MACHINE) == 0)
    vmctl("kill", MACHINE)
    vmctl("rm", MACHINE)
    events.process.terminate()
    return failed()


sys.exit(main())
