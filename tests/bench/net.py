#!/usr/bin/env python3
"""Measure polyvisor's network card against the distribution's QEMU: iperf3 in the guest, a server on
the host, user networking (libslirp) in between; all in one run, one peer after the other.

Ratios are QEMU's time for the same bytes divided by ours: above 1 we are faster.
"""
import argparse
import json
import shutil
import socket
import subprocess
import sys
import tempfile

from guest import Guest, GuestError, Setup, WorkloadError


def progress(text):
    print(f"bench-net: {text}", file=sys.stderr, flush=True)


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def measure(setup, args, port):
    """{workload: {peer: [seconds]}}"""
    results = {}
    guests = {}
    try:
        for peer in ("qemu", args.engine):
            guests[peer] = guest = Guest(setup, peer, f"bench-net iperf={port}", args.disk, net=True)
            for name in guest.workloads():
                results.setdefault(name, {})
            progress(f"{peer} is up")
        for name, found in results.items():
            for _ in range(args.repetitions):
                for peer, guest in guests.items():
                    seconds = guest.measure(name).seconds
                    found.setdefault(peer, []).append(seconds)
                    progress(f"{name}: {peer} {seconds:.3f} s")
        for guest in guests.values():
            guest.end()
    finally:
        for guest in guests.values():
            guest.kill()
    return results


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("--vmctl", "--kernel", "--initrd", "--disk"):
        parser.add_argument(name, required=True)
    parser.add_argument("--engine", default="auto")
    parser.add_argument("--cpus", type=int, default=1)
    parser.add_argument("--memory", default="512M")
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--megabytes", type=int, default=256, help="what the guest's script transfers (for the rates)")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()

    port = free_port()
    server = subprocess.Popen(["iperf3", "-s", "-p", str(port), "-B", "127.0.0.1"], stdout=subprocess.DEVNULL)
    work = tempfile.mkdtemp(prefix="pvbench")
    try:
        setup = Setup(args.vmctl, args.kernel, args.initrd, args.cpus, args.memory, 180, work)
        results = measure(setup, args, port)
    except (GuestError, WorkloadError) as error:
        progress(error)
        return 1
    finally:
        server.terminate()
        server.wait()
        shutil.rmtree(work, ignore_errors=True)

    rows = {name: {peer: min(times) for peer, times in found.items()} for name, found in results.items()}
    if args.json:
        print(json.dumps(rows, indent=2))
        return 0
    print(f"{'workload':<18}{'QEMU MiB/s':>12}{args.engine + ' MiB/s':>18}{'ratio':>8}")
    for name, row in rows.items():
        print(f"{name:<18}{args.megabytes / row['qemu']:>12.0f}{args.megabytes / row[args.engine]:>18.0f}"
              f"{row['qemu'] / row[args.engine]:>8.2f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
