#!/usr/bin/env python3
"""Measure a shared directory (virtio-fs) against the distribution's virtiofsd under its QEMU: fio, an
archive that is unpacked, read and removed, and git, all in one run, one peer after the other, each in a
directory of its own on the same file system.

Ratios are QEMU's time for the same work divided by ours: above 1 we are faster.
"""
import argparse
import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile

from guest import Guest, GuestError, Setup, WorkloadError


def progress(text):
    print(f"bench-share: {text}", file=sys.stderr, flush=True)


def make_tree(path, files):
    """Directories of 50 files, as sources are: most are small, some are not."""
    with tarfile.open(path, "w") as archive:
        for number in range(files):
            data = (f"/* file {number} */\n" * (1 + number * 7919 % 900)).encode()
            entry = tarfile.TarInfo(f"tree/part-{number // 50}/file-{number}.c")
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))


def git(folder, *arguments):
    subprocess.run(["git", "-c", "user.name=bench", "-c", "user.email=bench@example.org", "-C", folder, *arguments],
                   check=True, stdout=subprocess.DEVNULL)


def make_share(folder, files):
    """What both peers find in their directory."""
    os.mkdir(folder)
    make_tree(f"{folder}/tree.tar", files)
    with open(f"{folder}/fio.data", "wb") as data:
        for _ in range(64):
            data.write(os.urandom(1 << 20))
    if shutil.which("git"):
        work = f"{folder}/repository"
        os.mkdir(work)
        with tarfile.open(f"{folder}/tree.tar") as archive:
            archive.extractall(work)
        git(work, "init", "-q")
        git(work, "add", ".")
        git(work, "commit", "-q", "-m", "tree")


def measure(setup, args):
    """{workload: {peer: [seconds]}}"""
    results, guests, peers = {}, {}, ("qemu", args.engine)
    try:
        for peer in peers:
            folder = os.path.join(args.folder or setup.work, f"share-{peer}")
            make_share(folder, args.files)
            guests[peer] = guest = Guest(setup, peer, f"bench-share seconds={args.seconds}", args.disk,
                                         share=(folder, args.cache))
            for name in guest.workloads():
                if not args.only or any(word in name for word in args.only):
                    results.setdefault(name, {})
            progress(f"{peer} is up")
        for name, found in results.items():
            for _ in range(args.repetitions):
                sums = {}
                for peer, guest in guests.items():
                    result = guest.measure(name)
                    sums[peer] = result.checksum
                    found.setdefault(peer, []).append(result.seconds)
                    progress(f"{name}: {peer} {result.seconds:.3f} s")
                if len(set(sums.values())) > 1:
                    raise WorkloadError(f"{name}: the peers' results differ")
        for guest in guests.values():
            guest.end()
    finally:
        for guest in guests.values():
            guest.kill()
        if args.folder:
            for peer in peers:
                shutil.rmtree(os.path.join(args.folder, f"share-{peer}"), ignore_errors=True)
    return results


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("--vmctl", "--kernel", "--initrd", "--disk"):
        parser.add_argument(name, required=True)
    parser.add_argument("--engine", default="auto")
    parser.add_argument("--cpus", type=int, default=1)
    parser.add_argument("--memory", default="512M")
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--seconds", type=int, default=2, help="each measurement of fio takes one more")
    parser.add_argument("--files", type=int, default=2000, help="of the archive; a kernel has 80000")
    parser.add_argument("--folder", help="where the shared directories are made; it decides on their file system")
    parser.add_argument("--cache", default="auto", help="cache mode of both")
    parser.add_argument("--only", nargs="*", help="words of the workloads' names")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()

    work = tempfile.mkdtemp(prefix="pvbench")
    try:
        setup = Setup(args.vmctl, args.kernel, args.initrd, args.cpus, args.memory, 600, work)
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
    print(f"{'workload':<16}{'virtiofsd s':>12}{args.engine + ' s':>12}{'ratio':>8}")
    for name, row in rows.items():
        print(f"{name:<16}{row['qemu']:>12.3f}{row[args.engine]:>12.3f}{row['qemu'] / row[args.engine]:>8.2f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
