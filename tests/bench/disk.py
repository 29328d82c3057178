#!/usr/bin/env python3
"""Measure polyvisor's disks against the distribution's QEMU: Debian's fio in the guest on an image that
the host has cached, direct in the guest, the same cache mode, all in one run, one peer after the
other.

Ratios are QEMU's time for the same requests divided by ours: above 1 we are faster.
"""
import os
import subprocess
import sys

import versus
from guest import Guest


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


def main():
    parser = versus.arguments(__doc__)
    parser.add_argument("--seconds", type=int, default=2, help="each measurement takes one more")
    parser.add_argument("--megabytes", type=int, default=256, help="of the image")
    parser.add_argument("--images", help="folder of the images; it decides on their file system")
    parser.add_argument("--cache", default="writeback")
    parser.add_argument("--format", choices=("raw", "qcow2"), default="raw", help="of the image")
    parser.add_argument("--aio", default="auto", help="ours")
    parser.add_argument("--qemu-aio", default="threads", help="threads is QEMU's default")
    args = parser.parse_args()
    images = []

    def start(setup, peer):
        image = os.path.join(args.images or setup.work, f"scratch-{versus.file_name(peer)}.img")
        images.append(image)
        make_image(image, args.megabytes, args.format)
        options = {"cache": args.cache, "aio": args.qemu_aio if peer == "qemu" else args.aio,
                   "format": args.format}
        return Guest(setup, peer, f"bench-disk seconds={args.seconds}", args.disk, scratch=(image, options))

    try:  # a measurement is of 1000 requests
        rows = versus.measure(args, 180, start, lambda seconds: f"{1000 / seconds:.0f} requests/s")
    finally:
        for image in images:
            if os.path.exists(image):
                os.unlink(image)
    return versus.show(args, rows, "QEMU", "req/s", lambda seconds: f"{1000 / seconds:.0f}")


if __name__ == "__main__":
    sys.exit(main())
