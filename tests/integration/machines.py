"""What the tests that kill processes share: vmctl, vmmd's events, processes of devices, consoles."""
import json
import queue
import re
import subprocess
import threading
import time

VMCTL, DAEMON = "vmctl", 0  # set by begin()
PATIENCE = 300  # seconds; bounds a hang, proves no speed


def begin(vmctl_program, daemon):
    """`daemon` is the pid of the vmmd that vmctl talks to."""
    global VMCTL, DAEMON
    VMCTL, DAEMON = vmctl_program, daemon


failures = 0


def failed():
    return failures != 0


def check(name, condition, detail=""):
    global failures
    if condition:
        print(f"ok - {name}", flush=True)
    else:
        failures += 1
        print(f"not ok - {name}\n    {detail}", flush=True)


def vmctl(*arguments):
    return subprocess.run([VMCTL, *arguments], check=True, stdout=subprocess.PIPE, text=True).stdout


class Events(threading.Thread):
    """What vmmd tells, with the time at which we heard it."""

    def __init__(self):
        super().__init__(daemon=True)
        self.process = subprocess.Popen([VMCTL, "events", "--json"], stdout=subprocess.PIPE, text=True)
        self.seen = []
        self.changed = threading.Condition()
        self.start()
        # vmctl cannot say itself when vmmd has heard of it: a machine that comes and goes shows it.
        while not self.mark():
            vmctl("create", "listening", "--kernel", VMCTL)
            vmctl("rm", "listening")

    def run(self):
        for line in self.process.stdout:
            event = json.loads(line)
            event["heard"] = time.monotonic()
            with self.changed:
                self.seen.append(event)
                self.changed.notify_all()

    def mark(self):
        with self.changed:
            return len(self.seen)

    def wait(self, mark, kind, component, patience, machine, skip=0):
        """The first such event after `mark` and after `skip` of them, or None."""
        deadline = time.monotonic() + patience
        with self.changed:
            while True:
                found = [event for event in self.seen[mark:] if event["kind"] == kind and
                         event["component"] == component and event["machine"] == machine]
                if len(found) > skip:
                    return found[skip]
                left = deadline - time.monotonic()
                if left <= 0:
                    return None
                self.changed.wait(left)

    def hung(self, machine):
        """How often vmmd ended a process because it did not answer, not because it was stopped."""
        with self.changed:
            return sum(event["kind"] == "hung" and event["machine"] == machine and
                       "stopped" not in event["detail"] for event in self.seen)

    def count(self, kind, machine):
        with self.changed:
            return sum(event["kind"] == kind and event["machine"] == machine for event in self.seen)


def process_of(machine, device):
    """The device's process now, or 0 between two of them."""
    with open(f"/proc/{DAEMON}/task/{DAEMON}/children") as children:
        for pid in children.read().split():
            try:
                with open(f"/proc/{pid}/cmdline", "rb") as file:
                    words = file.read().decode().split("\0")
                with open(f"/proc/{pid}/comm") as file:
                    standby = file.read() == "devd-standby\n"
            except OSError:
                continue
            if not standby and re.search(rf"/vms/{machine}/{device}(\.next)?\.sock", " ".join(words)):
                return int(pid)
    return 0


class Console:
    """vmctl attached to one of the guest's consoles, line by line."""

    def __init__(self, machine, device):
        self.process = subprocess.Popen([VMCTL, "--quiet", "console", "--device", device, machine], bufsize=0,
                                        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        self.lines = queue.Queue()
        threading.Thread(target=self.read, daemon=True).start()

    def read(self):
        rest = b""
        while piece := self.process.stdout.read(65536):
            *lines, rest = (rest + piece).split(b"\n")
            for line in lines:
                self.lines.put(line.decode(errors="replace").rstrip("\r"))
        self.lines.put(None)

    def say(self, line):
        self.process.stdin.write((line + "\n").encode())


class Shell(Console):
    """The guest's shell on its console: one command at a time (tests/guests/scripts/commands)."""

    def __init__(self, machine):
        super().__init__(machine, "serial0")

    def answer(self):
        """(status, output) of the command that was told last."""
        output = []
        while True:
            line = self.lines.get(timeout=PATIENCE)
            if line is None:
                raise RuntimeError("the console was closed: " + "\n".join(output[-20:]))
            status = re.fullmatch(r"status (\d+)", line)
            if status:
                return int(status[1]), "\n".join(output)
            output.append(line)

    def ask(self, command):
        self.say(command)
        return self.answer()
