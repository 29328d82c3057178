#!/usr/bin/env python3
"""Measure polyvisor's network card against the distribution's QEMU: iperf3 in the guest, a server on
the host, user networking (libslirp) in between; all in one run, one peer after the other.

Ratios are QEMU's time for the same bytes divided by ours: above 1 we are faster.
"""
import socket
import subprocess
import sys

import versus
from guest import Guest


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def main():
    parser = versus.arguments(__doc__)
    parser.add_argument("--megabytes", type=int, default=256, help="what the guest's script transfers (for the rates)")
    args = parser.parse_args()
    port = free_port()

    def start(setup, peer):
        return Guest(setup, peer, f"bench-net iperf={port}", args.disk, net=True)

    server = subprocess.Popen(["iperf3", "-s", "-p", str(port), "-B", "127.0.0.1"], stdout=subprocess.DEVNULL)
    try:
        rows = versus.measure(args, 180, start, lambda seconds: f"{seconds:.3f} s")
    finally:
        server.terminate()
        server.wait()
    return versus.show(args, rows, "QEMU", "MiB/s", lambda seconds: f"{args.megabytes / seconds:.0f}")


if __name__ == "__main__":
    sys.exit(main())
