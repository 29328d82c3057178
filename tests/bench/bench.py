#!/usr/bin/env python3
"""Measure polyvisor against the distribution's QEMU: same kernel, same initrd, same disk, in one run.

All peers are booted, and each workload runs under one after the other while the others wait at their
consoles, so that what else the machine does is the same for all. Of the repetitions of a workload the
shortest counts (--take), of the boots the median. Ratios are QEMU's time divided by ours: above 1 we
are faster. Results (checksums) are compared. Only ratios of one run mean anything; absolute figures
differ from machine to machine.
"""
import argparse
import json
import math
import shutil
import statistics
import subprocess
import sys
import tempfile

from guest import Guest, GuestError, Setup, WorkloadError, boot_seconds, start_seconds

CLASSES = ("integer", "fp", "system", "scaling", "real")
ENGINES = ("interp", "baseline", "auto")
IRQCHIPS = ("", "plic", "aia")
BOOT, WARM_BOOT = "start to power-off", "again, warm cache"
WARMING_BOOTS = 3
STARTS = ("start to first output", "start to end, no kernel")
TAKE = {"min": min, "median": statistics.median, "first": lambda values: values[0]}


def progress(text):
    print(f"bench: {text}", file=sys.stderr, flush=True)


class Failures:
    """What went wrong under whom; said at once, and again at the end."""

    def __init__(self):
        self.found = []

    def add(self, peer, name, reason):
        self.found.append({"peer": peer, "name": name, "reason": str(reason)})
        progress(f"{peer}: {name}: {reason}")


class Group:
    """The guests of all peers that run one script; one that died is booted again for the next workload."""

    def __init__(self, setup, peers, script, disk, failures):
        self.setup, self.peers, self.script, self.disk = setup, peers, script, disk
        self.failures = failures
        self.guests, self.given_up = {}, set()

    def guest(self, peer):
        """A guest that is ready, or None."""
        if peer in self.given_up:
            return None
        if peer not in self.guests:
            guest = self.guests[peer] = Guest(self.setup, peer, self.script, self.disk)
            try:
                guest.offered = guest.workloads()
            except GuestError as error:
                self.failures.add(peer, self.script, error)
                self.given_up.add(peer)
                self.drop(peer)
                return None
        return self.guests[peer]

    def drop(self, peer):
        self.guests.pop(peer).kill()

    def offered(self):
        """{name: class} of all that any peer offers."""
        names = {}
        for peer in self.peers:
            guest = self.guest(peer)
            names.update(guest.offered if guest else {})
        return names

    def measure(self, name, repetitions):
        """{peer: [Measurement]}; a peer under which it failed is missing."""
        results, failed = {}, set()
        for _ in range(repetitions):
            for peer in self.peers:
                guest = None if peer in failed else self.guest(peer)
                if guest is None:
                    failed.add(peer)
                    continue
                try:
                    results.setdefault(peer, []).append(guest.measure(name))
                except (GuestError, WorkloadError) as error:
                    self.failures.add(peer, name, error)
                    failed.add(peer)
                    if isinstance(error, GuestError):
                        self.drop(peer)
        return {peer: found for peer, found in results.items() if peer not in failed}

    def end(self):
        for peer in list(self.guests):
            try:
                self.guests[peer].end()
            except (GuestError, subprocess.TimeoutExpired) as error:
                self.failures.add(peer, f"power-off after {self.script}", error)
            self.drop(peer)

    def kill(self):
        for peer in list(self.guests):
            self.drop(peer)


def boot_row(setup, args, failures, name, cache):
    """`cache(run)`: the folder for compiled code of that run."""
    times = {peer: [] for peer in args.peers}
    for run in range(args.runs):
        for peer, found in times.items():
            try:
                found.append(boot_seconds(setup, peer, cache(run)))
            except (GuestError, subprocess.TimeoutExpired) as error:
                failures.add(peer, name, error)
        progress(f"{name}, {run + 1} of {args.runs}: " +
                 ", ".join(f"{peer} {found[-1]:.2f} s" for peer, found in times.items() if found))
    return {"name": name, "class": "boot",
            "peers": {peer: {"seconds": statistics.median(found), "all": found, "mips": None}
                      for peer, found in times.items() if found}}


def start_rows(setup, args, failures):
    """What is there before a guest's first instruction, and after its last one."""
    times = {peer: [] for peer in args.peers}
    for _ in range(args.starts):
        for peer, found in times.items():
            try:
                found.append(start_seconds(setup, peer, args.firmware))
            except (GuestError, subprocess.TimeoutExpired) as error:
                failures.add(peer, STARTS[0], error)
    rows = []
    for i, name in enumerate(STARTS):
        peers = {}
        for peer, found in times.items():
            seconds = [pair[i] for pair in found]
            if seconds:
                peers[peer] = {"seconds": statistics.median(seconds), "all": seconds, "mips": None}
        progress(f"{name}: " + ", ".join(f"{peer} {one['seconds']:.3f} s" for peer, one in peers.items()))
        rows.append({"name": name, "class": "boot", "peers": peers})
    return rows


def boot_rows(setup, args, failures):
    """With a cache of compiled code that is empty, and, if an engine has one, with one that is not."""
    rows = start_rows(setup, args, failures) if args.firmware else []
    rows += [boot_row(setup, args, failures, BOOT, lambda run: f"cold{run}")]
    if "auto" in args.engines:
        for _ in range(WARMING_BOOTS):
            boot_seconds(setup, "auto", "warm")
        rows.append(boot_row(setup, args, failures, WARM_BOOT, lambda run: "warm"))
    return rows


def workload_row(name, kind, measured, take):
    """One line of the table, and whether the results agree."""
    peers = {}
    for peer, found in measured.items():
        seconds = [one.seconds for one in found]
        counts = [one.instructions for one in found]
        peers[peer] = {"seconds": take(seconds), "all": seconds,
                       "mips": sum(counts) / sum(seconds) / 1e6 if None not in counts else None}
    same = len({one.checksum for found in measured.values() for one in found}) <= 1
    progress(f"{name}: " + ", ".join(f"{peer} {one['seconds']:.3f} s" for peer, one in peers.items()))
    return {"name": name, "class": kind, "peers": peers}, same


def measure_group(group, args, wanted):
    """(rows, names whose results differ, all names offered)"""
    rows, different = [], []
    try:
        offered = group.offered()
        for name, kind in offered.items():
            if not wanted(name, kind):
                continue
            measured = group.measure(name, args.repetitions)
            row, same = workload_row(name, kind, measured, TAKE[args.take])
            rows.append(row)
            if not same:
                different.append(name)
        group.end()
    finally:
        group.kill()
    return rows, different, offered


def measure_all(setup, args, failures):
    """(rows, names whose results differ)"""
    only = set(args.only or ())
    seen = {"boot"}

    def wanted(name, kind):
        seen.update({name, kind})
        return not only or name in only or kind in only

    rows, different = [], []
    groups = [("bench", None)] if only != {"boot"} else []
    if args.disk and not args.no_real:
        groups.append(("bench-real", args.disk))
    for script, disk in groups:
        if only and only <= seen:
            continue
        progress(f"booting {', '.join(args.peers)} for script {script}")
        found = measure_group(Group(setup, args.peers, script, disk, failures), args, wanted)
        rows += found[0]
        different += found[1]
    for name in only - seen if not failures.found else ():
        failures.add("all", name, "no such workload or class")
    if not only or "boot" in only:
        rows += boot_rows(setup, args, failures)
    return rows, different


def add_ratios(rows, engines):
    """Ratios into the rows; returns {engine: {class: geomean}}."""
    means = {}
    for row in rows:
        for engine in engines:
            if "qemu" in row["peers"] and engine in row["peers"]:
                row["peers"][engine]["ratio"] = row["peers"]["qemu"]["seconds"] / row["peers"][engine]["seconds"]
    for engine in engines:
        means[engine] = {}
        for kind in CLASSES:
            ratios = [row["peers"][engine]["ratio"] for row in rows
                      if row["class"] == kind and "ratio" in row["peers"].get(engine, {})]
            if ratios:
                means[engine][kind] = math.exp(statistics.fmean(math.log(ratio) for ratio in ratios))
    return means


def speedups(rows, peers):
    """{work: {peer: {threads: how many times as fast as one thread}}} of the rows of class scaling."""
    found = {}
    for row in rows:
        if row["class"] == "scaling":
            work, threads = row["name"].rsplit("-", 1)
            for peer in peers:
                if peer in row["peers"]:
                    found.setdefault(work, {}).setdefault(peer, {})[int(threads)] = row["peers"][peer]["seconds"]
    return {work: {peer: {threads: times[1] / seconds for threads, seconds in times.items()}
                   for peer, times in by_peer.items() if 1 in times} for work, by_peer in found.items()}


def print_speedups(rows, args):
    table = speedups(rows, args.peers)
    counts = sorted({threads for by_peer in table.values() for times in by_peer.values() for threads in times} - {1})
    if not counts:
        return
    print("\nhow many times as fast as one thread")
    print(f"{'work':<20}" + "".join(f"{peer + ', ' + str(count):>16}" for peer in args.peers for count in counts))
    for work, by_peer in table.items():
        print(f"{work:<20}" + "".join(cell(by_peer.get(peer, {}).get(count), ".2f", 16)
                                      for peer in args.peers for count in counts))


def cell(value, form, width):
    return f"{'-' if value is None else format(value, form):>{width}}"


def print_table(args, qemu, rows, means):
    print(f"{qemu}; {args.cpus} vCPU, {args.memory}")
    print(f"ratio = QEMU's time / ours (above 1: we are faster); {args.take} of {args.repetitions} runs, "
          f"median of {args.runs} boots")
    print(f"{'':<34}{'QEMU':>9}" + "".join(f"{engine:>28}" for engine in args.engines))
    print(f"{'workload':<25}{'class':<9}{'s':>9}" + f"{'s':>10}{'ratio':>8}{'M insn/s':>10}" * len(args.engines))
    for row in rows:
        line = f"{row['name']:<25}{row['class']:<9}{cell(row['peers'].get('qemu', {}).get('seconds'), '.3f', 9)}"
        for engine in args.engines:
            ours = row["peers"].get(engine, {})
            line += (cell(ours.get("seconds"), ".3f", 10) + cell(ours.get("ratio"), ".2f", 8) +
                     cell(ours.get("mips"), ".0f", 10))
        print(line)
    for kind in CLASSES:
        if any(kind in mean for mean in means.values()):
            print(f"{'geomean ' + kind:<43}" +
                  "".join(f"{'':>10}{cell(means[engine].get(kind), '.2f', 8)}{'':>10}" for engine in args.engines))


def engine_list(text):
    engines = list(dict.fromkeys(text.split(",")))
    for engine in engines:
        name, _, irqchip = engine.partition("/")
        if name not in ENGINES or irqchip not in IRQCHIPS:
            raise argparse.ArgumentTypeError(f"{engine!r} is not one of {', '.join(ENGINES)}, "
                                             "perhaps with /plic or /aia")
    return engines


def positive(text):
    if int(text) < 1:
        raise argparse.ArgumentTypeError("must be 1 or more")
    return int(text)


def parse():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--vmctl", required=True)
    parser.add_argument("--kernel", required=True)
    parser.add_argument("--initrd", required=True)
    parser.add_argument("--firmware", help="that prints \"!\" and powers off; without it no starts without a kernel")
    parser.add_argument("--starts", type=positive, default=15, help="starts of it (default: 15)")
    parser.add_argument("--disk", help="the image of tools/make-bench-root; without it no real programs")
    parser.add_argument("--engine", "--engines", dest="engines", type=engine_list, default=["auto"],
                        metavar="ENGINE[,ENGINE]...", help=f"of {', '.join(ENGINES)}, each perhaps with /plic or /aia; "
                        "default: auto")
    parser.add_argument("--cpus", type=positive, default=1)
    parser.add_argument("--memory", default="512M")
    parser.add_argument("--runs", type=positive, default=3, help="boots of each that are timed (default: 3)")
    parser.add_argument("--repetitions", type=positive, default=3, help="runs of each workload (default: 3)")
    parser.add_argument("--take", choices=TAKE, default="min", help="which of the runs counts (default: min)")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="workloads, classes, or boot")
    parser.add_argument("--no-real", action="store_true", help="leave the programs of the disk out")
    parser.add_argument("--silence", type=float, default=180,
                        help="seconds after which a guest that prints nothing has failed (default: 180)")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    args.peers = ["qemu", *args.engines]
    return args


def main():
    args = parse()
    version = subprocess.run(["qemu-system-riscv64", "--version"], capture_output=True, text=True, check=True)
    qemu = version.stdout.splitlines()[0]
    failures = Failures()
    work = tempfile.mkdtemp(prefix="pvbench")
    try:
        setup = Setup(args.vmctl, args.kernel, args.initrd, args.cpus, args.memory, args.silence, work)
        rows, different = measure_all(setup, args, failures)
    finally:
        shutil.rmtree(work, ignore_errors=True)

    means = add_ratios(rows, args.engines)
    if args.json:
        print(json.dumps({"qemu": qemu, "engines": args.engines, "cpus": args.cpus, "memory": args.memory,
                          "take": args.take, "repetitions": args.repetitions, "boots": args.runs, "rows": rows,
                          "geomean": means, "speedups": speedups(rows, args.peers), "different_results": different, "failures": failures.found}, indent=2))
    else:
        print_table(args, qemu, rows, means)
        print_speedups(rows, args)
    for failure in failures.found:
        print(f"bench: {failure['peer']}: {failure['name']}: {failure['reason']}", file=sys.stderr)
    if different:
        print(f"bench: results differ between runs or emulators: {', '.join(different)}", file=sys.stderr)
    return 1 if failures.found or different else 0


if __name__ == "__main__":
    sys.exit(main())
