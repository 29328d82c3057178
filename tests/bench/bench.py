#!/usr/bin/env python3
"""Measure polyvisor against the distribution's QEMU: same kernel, same initrd, in turn, in one run.

Ratios are QEMU's time divided by ours: above 1 we are faster. Results (checksums) are compared.
Only ratios of one run mean anything; absolute figures differ from machine to machine.
"""
import argparse
import glob
import json
import math
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

CLASSES = ("integer", "fp", "system")


def machine_command(peer, args, append, work):
    """The command that boots the guest with its console on standard input and output."""
    if peer == "qemu":
        return ["qemu-system-riscv64", "-M", "virt", "-cpu", "rv64", "-smp", str(args.cpus), "-m", args.memory,
                "-nographic", "-no-reboot", "-kernel", args.kernel, "-initrd", args.initrd, "-append", append]
    return [args.vmctl, "run", "--quiet", "--name", "bench", "--arch", "riscv64", "--cpus", str(args.cpus),
            "--memory", args.memory, "--kernel", args.kernel, "--initrd", args.initrd, "--append", append,
            "--engine", args.engine]


def start(peer, args, script, work):
    environment = dict(os.environ, POLYVISOR_RUNTIME_DIR=work)
    command = machine_command(peer, args, f"quiet script={script}", work)
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment, bufsize=0)


def lines(process, limit):
    """Console lines until the guest ends; a guest that says nothing for `limit` seconds is an error."""
    import select
    pending = b""
    while True:
        if not select.select([process.stdout], [], [], limit)[0]:
            process.kill()
            raise SystemExit(f"bench: no output for {limit} s; last: {pending!r}")
        chunk = os.read(process.stdout.fileno(), 65536)
        if not chunk:
            return
        pending += chunk
        while b"\n" in pending:
            line, pending = pending.split(b"\n", 1)
            yield line.decode(errors="replace").strip()


def retired(args, work):
    """Guest instructions so far, from the private daemon of our `vmctl run`."""
    for directory in glob.glob(os.path.join(work, "private", "*")):
        done = subprocess.run([args.vmctl, "--json", "--runtime-dir", directory, "stats", "bench"],
                              capture_output=True, text=True, check=False)
        if done.returncode == 0:
            return find_number(json.loads(done.stdout), "retired")
    return None


def find_number(tree, name):
    if isinstance(tree, dict):
        if isinstance(tree.get(name), int):
            return tree[name]
        if tree.get("name") == name and isinstance(tree.get("value"), int):
            return tree["value"]
        tree = list(tree.values())
    if isinstance(tree, list):
        for branch in tree:
            found = find_number(branch, name)
            if found is not None:
                return found
    return None


def boot_time(peer, args, work):
    began = time.monotonic()
    process = start(peer, args, "idle", work)
    process.stdin.close()
    up = any("guest up" in line for line in list(lines(process, 300)))
    if process.wait() != 0 or not up:
        raise SystemExit(f"bench: {peer} did not boot")
    return time.monotonic() - began


def workloads(peer, args, work):
    """{name: (class, seconds, checksum, instructions or None)} of one boot."""
    process = start(peer, args, "bench", work)
    results, before = {}, None
    for line in lines(process, 300):
        if line.startswith("ready "):
            before = retired(args, work) if peer == "polyvisor" else None
            process.stdin.write(b"\n")
        found = re.match(r"bench (\w+) (\w+) (\d+) ([0-9a-f]+)$", line)
        if found:
            name, kind, elapsed, checksum = found.groups()
            after = retired(args, work) if before is not None else None
            count = after - before if after is not None else None
            results[name] = (kind, int(elapsed) / 1e9, checksum, count)
    process.wait()
    if not results:
        raise SystemExit(f"bench: {peer} printed no result")
    return results


def geomean(values):
    return math.exp(statistics.fmean(math.log(value) for value in values))


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--vmctl", required=True)
    parser.add_argument("--kernel", required=True)
    parser.add_argument("--initrd", required=True)
    parser.add_argument("--engine", default="auto", choices=("interp", "baseline", "auto"))
    parser.add_argument("--cpus", type=int, default=1)
    parser.add_argument("--memory", default="512M")
    parser.add_argument("--runs", type=int, default=3, help="boots timed of each, in turn; the median counts")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    work = tempfile.mkdtemp(prefix="pvbench")
    try:
        run(args, work)
    finally:
        shutil.rmtree(work, ignore_errors=True)


def run(args, work):
    boots = {"qemu": [], "polyvisor": []}
    for _ in range(args.runs):
        for peer, times in boots.items():
            times.append(boot_time(peer, args, work))
    ours, theirs = workloads("polyvisor", args, work), workloads("qemu", args, work)

    rows, wrong = [], []
    for name, (kind, seconds, checksum, count) in ours.items():
        if name not in theirs:
            continue
        if theirs[name][2] != checksum:
            wrong.append(name)
        rows.append({"name": name, "class": kind, "qemu_s": theirs[name][1], "polyvisor_s": seconds,
                     "ratio": theirs[name][1] / seconds,
                     "mips": count / seconds / 1e6 if count else None})
    boot = {"name": "start to power-off", "class": "boot",
            "qemu_s": statistics.median(boots["qemu"]), "polyvisor_s": statistics.median(boots["polyvisor"])}
    boot.update(ratio=boot["qemu_s"] / boot["polyvisor_s"], mips=None)
    rows.append(boot)
    means = {kind: geomean([row["ratio"] for row in rows if row["class"] == kind])
             for kind in CLASSES if any(row["class"] == kind for row in rows)}
    if args.json:
        print(json.dumps({"engine": args.engine, "cpus": args.cpus, "rows": rows, "geomean": means,
                          "different_results": wrong}, indent=2))
    else:
        print(f"engine {args.engine}, {args.cpus} vCPU, {args.memory}; ratio = QEMU's time / ours (above 1: we are faster)")
        print(f"{'workload':<20}{'class':<9}{'QEMU s':>9}{'ours s':>9}{'ratio':>8}{'M insn/s':>10}")
        for row in rows:
            rate = f"{row['mips']:.0f}" if row["mips"] else "-"
            print(f"{row['name']:<20}{row['class']:<9}{row['qemu_s']:>9.3f}{row['polyvisor_s']:>9.3f}"
                  f"{row['ratio']:>8.2f}{rate:>10}")
        for kind, mean in means.items():
            print(f"{'geomean ' + kind:<47}{mean:>8.2f}")
    if wrong:
        print(f"bench: results differ between the emulators: {', '.join(wrong)}", file=sys.stderr)
        raise SystemExit(1)


if __name__ == "__main__":
    main()
