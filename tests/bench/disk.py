#!/usr/bin/env python3
"""Measure polyvisor's disks against the distribution's QEMU: Debian's fio in the guest on an image that
the host has cached, direct in the guest, the same cache mode, all in one run, one peer after the
other.

Ratios are QEMU's time for the same requests divided by ours: above 1 we are faster.
"""
import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile

from guest import Guest, GuestError, Setup, WorkloadError


def progress(text):
    print(f"bench-disk: {text}", file=sys.stderr, flush=True)


def make_image(path, megabytes, form):
    """Written, not sparse: what is measured are requests, not the allocation of blocks."""
    if form == "qcow2":
        make_image(path + ".raw", megabytes, "raw")
        subprocess.run(["qemu-img", "convert", "-q", "-O", "qcow2", path + ".raw", path], check=True)
        os.unlink(path + ".raw")
        return
    block = os.urandom(1 << 20)
    with open(path, "wb") as image:
        for _ in range(megabytes):
            image.write(block)
        os.fsync(image.fileno())


def file_name(peer):
    return peer.replace("/", "-")  # "auto/plic"


def measure(setup, args):
    """{workload: {peer: [seconds of 1000 requests]}}"""
    results = {}
    guests = {}
    try:
        for peer in ("qemu", args.engine):
            image = os.path.join(args.images or setup.work, f"scratch-{file_name(peer)}.img")
            make_image(image, args.megabytes, args.format)
            options = {"cache": args.cache, "aio": args.qemu_aio if peer == "qemu" else args.aio,
                       "format": args.format}
            guests[peer] = guest = Guest(setup, peer, f"bench-disk seconds={args.seconds}", args.disk,
                                         scratch=(image, options))
            for name in guest.workloads():
                if not args.only or any(word in name for word in args.only):
                    results.setdefault(name, {})
            progress(f"{peer} is up")
        for name, found in results.items():
            for _ in range(args.repetitions):
                for peer, guest in guests.items():
                    seconds = guest.measure(name).seconds
                    found.setdefault(peer, []).append(seconds)
                    progress(f"{name}: {peer} {1000 / seconds:.0f} requests/s")
        for guest in guests.values():
            guest.end()
    finally:
        for guest in guests.values():
            guest.kill()
            image = os.path.join(args.images or setup.work, f"scratch-{file_name(guest.peer)}.img")
            if os.path.exists(image):
                os.unlink(image)
    return results


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("--vmctl", "--kernel", "--initrd", "--disk"):
        parser.add_argument(name, required=True)
    parser.add_argument("--engine", default="auto")
    parser.add_argument("--cpus", type=int, default=1)
    parser.add_argument("--memory", default="512M")
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--seconds", type=int, default=2, help="each measurement takes one more")
    parser.add_argument("--megabytes", type=int, default=256, help="of the image")
    parser.add_argument("--images", help="folder of the images; it decides on their file system")
    parser.add_argument("--cache", default="writeback")
    parser.add_argument("--format", choices=("raw", "qcow2"), default="raw", help="of the image")
    parser.add_argument("--aio", default="auto", help="ours")
    parser.add_argument("--qemu-aio", default="threads", help="threads is QEMU's default")
    parser.add_argument("--only", nargs="*", help="words of the workloads' names")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()

    work = tempfile.mkdtemp(prefix="pvbench")
    try:
        setup = Setup(args.vmctl, args.kernel, args.initrd, args.cpus, args.memory, 180, work)
        results = measure(setup, args)
    except (GuestError, WorkloadError) as error:
        progress(error)
        return 1
    finally:
        shutil.rmtree(work, ignore_errors=True)

    rows = {name: {peer: min(times) for peer, times in found.items()} for name, found in results.items()}
    if args.json:
        print(json.dumps(rows, indent=2))
        return 0
    print(f"{'workload':<18}{'QEMU req/s':>12}{args.engine + ' req/s':>18}{'ratio':>8}")
    for name, row in rows.items():
        print(f"{name:<18}{1000 / row['qemu']:>12.0f}{1000 / row[args.engine]:>18.0f}"
              f"{row['qemu'] / row[args.engine]:>8.2f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
