"""QEMU and one of our engines side by side, workload by workload: what the measurements of devices share."""
import argparse
import json
import os
import shutil
import sys
import tempfile

from guest import GuestError, Setup, WorkloadError


def progress(text):
    name = os.path.splitext(os.path.basename(sys.argv[0]))[0]
    print(f"bench-{name}: {text}", file=sys.stderr, flush=True)


def arguments(description):
    """A parser of what all of them are told."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("--vmctl", "--kernel", "--initrd", "--disk"):
        parser.add_argument(name, required=True)
    parser.add_argument("--engine", default="auto")
    parser.add_argument("--cpus", type=int, default=1)
    parser.add_argument("--memory", default="512M")
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--only", nargs="*", help="words of the workloads' names")
    parser.add_argument("--json", action="store_true")
    return parser


def peers(args):
    return ("qemu", args.engine)


def file_name(peer):
    return peer.replace("/", "-")  # "auto/plic"


def run_all(args, guests, results, told, same_result):
    for name, found in results.items():
        for _ in range(args.repetitions):
            sums = set()
            for peer, guest in guests.items():
                result = guest.measure(name)
                sums.add(result.checksum)
                found.setdefault(peer, []).append(result.seconds)
                progress(f"{name}: {peer} {told(result.seconds)}")
            if same_result and len(sums) > 1:
                raise WorkloadError(f"{name}: the peers' results differ")


def measure(args, silence, start, told, same_result=False):
    """{workload: {peer: seconds}}, the least of the repetitions; None: it failed, and why was told.

    `start(setup, peer)` boots a guest, `told(seconds)` is a measurement in words. `silence` is after
    how many seconds a guest that says nothing is given up."""
    work = tempfile.mkdtemp(prefix="pvbench")
    guests, results = {}, {}
    try:
        setup = Setup(args.vmctl, args.kernel, args.initrd, args.cpus, args.memory, silence, work)
        for peer in peers(args):
            guests[peer] = start(setup, peer)
            for name in guests[peer].workloads():
                if not args.only or any(word in name for word in args.only):
                    results.setdefault(name, {})
            progress(f"{peer} is up")
        run_all(args, guests, results, told, same_result)
        for guest in guests.values():
            guest.end()
    except (GuestError, WorkloadError) as error:
        progress(error)
        return None
    finally:
        for guest in guests.values():
            guest.kill()
        shutil.rmtree(work, ignore_errors=True)
    return {name: {peer: min(times) for peer, times in found.items()} for name, found in results.items()}


def show(args, rows, theirs, unit, cell):
    """The rows, and how many times faster we are. `cell(seconds)` is a time in `unit`, as text. The exit status."""
    if rows is None:
        return 1
    if args.json:
        print(json.dumps(rows, indent=2))
        return 0
    print(f"{'workload':<18}{f'{theirs} {unit}':>12}{f'{args.engine} {unit}':>18}{'ratio':>8}")
    for name, row in rows.items():
        ours = row[args.engine]
        print(f"{name:<18}{cell(row['qemu']):>12}{cell(ours):>18}{row['qemu'] / ours:>8.2f}")
    return 0
