"""A guest that runs workloads when told to: its emulator, its console, its instruction counter.

The guest's script (tests/guests/scripts/bench*) prints "workload NAME CLASS" lines and "ready", reads
a name, prints "bench NAME CLASS NANOSECONDS CHECKSUM" or "failed NAME", and is ready again.
"""
import dataclasses
import glob
import json
import os
import re
import select
import subprocess
import tempfile
import time


class GuestError(Exception):
    """The guest ended, fell silent, or never came up: it is of no more use."""


class WorkloadError(Exception):
    """The workload failed; the guest goes on."""


@dataclasses.dataclass
class Setup:
    """What all peers boot."""
    vmctl: str
    kernel: str
    initrd: str
    cpus: int
    memory: str
    silence: float  # seconds after which a guest that says nothing is given up
    work: str       # a folder for run-time files


@dataclasses.dataclass
class Measurement:
    kind: str
    seconds: float
    checksum: str
    instructions: int | None


VIRTIOFSD = "/usr/lib/qemu/virtiofsd"


@dataclasses.dataclass
class Share:
    """A directory of the host, the guest's by the name "bench"."""
    folder: str
    cache: str   # of virtio-fs
    theirs: str  # what QEMU shares it with: "virtiofsd" or "9p"


def start_virtiofsd(work, folder, cache):
    """The server of QEMU's virtio-fs device: it, and the path of its socket."""
    socket = os.path.join(work, "virtiofsd.sock")
    server = subprocess.Popen([VIRTIOFSD, f"--socket-path={socket}", "-o", f"source={folder}", "-o", f"cache={cache}"],
                              stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    for _ in range(200):
        if os.path.exists(socket) or server.poll() is not None:
            break
        time.sleep(0.05)
    return server, socket


def qemu_command(setup, append, disk, net, scratch, share=None, socket=None):
    command = ["qemu-system-riscv64", "-M", "virt", "-cpu", "rv64", "-smp", str(setup.cpus), "-m", setup.memory,
               "-nographic", "-no-reboot", "-kernel", setup.kernel, "-initrd", setup.initrd, "-append", append]
    if disk:
        command += ["-drive", f"file={disk},format=raw,readonly=on,if=none,id=disk",
                    "-device", "virtio-blk-pci,drive=disk"]
    if scratch:
        path, options = scratch
        command += ["-drive", f"file={path},format={options['format']},if=none,id=scratch,cache={options['cache']},"
                    f"aio={options['aio']}" + (",readonly=on" if options.get("readonly") else ""),
                    "-device", "virtio-blk-pci,drive=scratch"]
    if net:
        command += ["-netdev", "user,id=net", "-device", "virtio-net-pci,netdev=net"]
    if share and share.theirs == "9p":
        command += ["-virtfs", f"local,path={share.folder},mount_tag=bench,security_model=none"]
    if socket:
        command += ["-object", f"memory-backend-memfd,id=ram,size={setup.memory},share=on",
                    "-machine", "memory-backend=ram", "-chardev", f"socket,id=share,path={socket}",
                    "-device", "vhost-user-fs-pci,chardev=share,tag=bench"]
    return command


def polyvisor_command(setup, peer, append, disk, net, scratch, share=None):
    engine, *words = peer.split("/")
    rings = "".join(f",{word}" for word in words if word.startswith("packed="))
    command = [setup.vmctl, "run", "--quiet", "--name", "bench", "--arch", "riscv64", "--cpus", str(setup.cpus),
               "--memory", setup.memory, "--kernel", setup.kernel, "--initrd", setup.initrd, "--append", append,
               "--engine", engine]
    for word in words:
        if not word.startswith("packed="):
            command += ["--machine", f"irqchip={word}"]
    if disk:
        command += ["--disk", f"path={disk},format=raw,readonly{rings}"]
    if scratch:
        path, options = scratch
        command += ["--disk", f"path={path},format={options['format']},cache={options['cache']},"
                    f"aio={options['aio']}{rings}" + (",readonly" if options.get("readonly") else "")]
    if net:
        command += ["--net", f"user{rings}"]
    if share:
        command += ["--share", f"{share.folder}:bench,cache={share.cache}"]
    return command


class Guest:
    """One boot. `peer` is "qemu" or one of our engines, perhaps with an irqchip ("auto/plic") or without
    packed rings ("auto/packed=off"); `cache` names the folder
    for compiled code, `scratch` is the path of a second disk, with its options (format, cache, aio, perhaps
    readonly)."""

    def __init__(self, setup, peer, script, disk=None, net=False, cache="cache", scratch=None, share=None):
        self.setup, self.peer = setup, peer
        self.work = tempfile.mkdtemp(prefix="g", dir=setup.work)
        append = f"quiet script={script}"
        self.server, socket = None, None
        if share and peer == "qemu" and share.theirs == "virtiofsd":
            self.server, socket = start_virtiofsd(self.work, share.folder, share.cache)
        command = (qemu_command(setup, append, disk, net, scratch, share, socket) if peer == "qemu"
                   else polyvisor_command(setup, peer, append, disk, net, scratch, share))
        self.pending = b""
        self.last = ""
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0,
                                        env=dict(os.environ, POLYVISOR_RUNTIME_DIR=self.work,
                                                 POLYVISOR_CACHE_DIR=os.path.join(setup.work, cache)))

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.kill()

    def lines(self):
        """The console's lines, until the guest ends."""
        while True:
            while b"\n" in self.pending:
                line, self.pending = self.pending.split(b"\n", 1)
                self.last = line.decode(errors="replace").strip()
                yield self.last
            if not select.select([self.process.stdout], [], [], self.setup.silence)[0]:
                raise GuestError(f"said nothing for {self.setup.silence:.0f} s after {self.last!r}")
            chunk = os.read(self.process.stdout.fileno(), 65536)
            if not chunk:
                return
            self.pending += chunk

    def say(self, text):
        try:
            self.process.stdin.write(text.encode() + b"\n")
        except OSError as error:
            raise GuestError(f"takes no input: {error}") from error

    def workloads(self):
        """{name: class} of what it offers, once it is ready for the first one."""
        found = {}
        for line in self.lines():
            if match := re.match(r"workload (\S+) (\S+)$", line):
                found[match[1]] = match[2]
            if line == "ready":
                return found
        raise GuestError(f"ended before it was ready, after {self.last!r}")

    def measure(self, name):
        """Run a workload once. The guest must be ready, and is again afterwards."""
        before = self.retired()
        self.say(name)
        result = None
        for line in self.lines():
            if match := re.search(rf"bench {re.escape(name)} (\S+) (\d+) ([0-9a-f]+)$", line):
                after = self.retired()
                result = Measurement(match[1], max(int(match[2]), 1) / 1e9, match[3],
                                     after - before if None not in (before, after) else None)
            if line == "ready":
                if result is None:
                    raise WorkloadError("the guest says that it failed")
                return result
        raise GuestError(f"ended in {name}, after {self.last!r}")

    def retired(self):
        """Guest instructions so far, from the private daemon of our `vmctl run`; None: not known."""
        if self.peer == "qemu":
            return None
        for directory in glob.glob(os.path.join(self.work, "private", "*")):
            done = subprocess.run([self.setup.vmctl, "--json", "--runtime-dir", directory, "stats", "bench"],
                                  capture_output=True, text=True, check=False)
            if done.returncode == 0:
                return json.loads(done.stdout).get("stats", {}).get("retired")
        return None

    def end(self):
        """Let it power off."""
        self.say("end")
        for _ in self.lines():
            pass
        if self.process.wait(self.setup.silence) != 0:
            raise GuestError(f"ended with status {self.process.returncode}")

    def kill(self):
        for stop in (self.process.terminate, self.process.kill):
            if self.process.poll() is None:
                stop()
                try:
                    self.process.wait(10)
                except subprocess.TimeoutExpired:
                    pass
        self.process.stdin.close()
        self.process.stdout.close()
        if self.server:
            self.server.terminate()
            self.server.wait()


def boot_seconds(setup, peer, cache):
    """From the start of the emulator to its end, for a guest that boots and powers off."""
    began = time.monotonic()
    with Guest(setup, peer, "idle", cache=cache) as guest:
        up = any(["guest up" in line for line in guest.lines()])
        status = guest.process.wait(setup.silence)
        elapsed = time.monotonic() - began
    if status != 0 or not up:
        raise GuestError(f"did not boot and power off (status {status}); last line {guest.last!r}")
    return elapsed


def start_seconds(setup, peer, firmware):
    """From the start of the emulator to what the guest's first instructions print, and to its end: they
    power it off."""
    command = [setup.vmctl, "run", "--quiet", "--name", "bench", "--arch", "riscv64", "--memory", setup.memory,
               "--firmware", firmware, "--engine", peer.split("/")[0]]
    if peer == "qemu":
        command = ["qemu-system-riscv64", "-M", "virt", "-m", setup.memory, "-nographic", "-no-reboot", "-bios",
                   firmware]
    environment = dict(os.environ, POLYVISOR_RUNTIME_DIR=os.path.join(setup.work, "start"),
                       POLYVISOR_CACHE_DIR=os.path.join(setup.work, "cache"))
    began = time.monotonic()
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, bufsize=0,
                          env=environment) as process:
        printed = os.read(process.stdout.fileno(), 1)
        first = time.monotonic() - began
        status = process.wait(setup.silence)
        if printed != b"!" or status != 0:
            raise GuestError(f"did not print and power off (status {status})")
    return first, time.monotonic() - began
