#!/usr/bin/env python3
"""Measure a shared directory (virtio-fs) against the distribution's virtiofsd, or 9p, under its QEMU: fio, an
archive that is unpacked, read and removed, and git, all in one run, one peer after the other, each in a
directory of its own on the same file system.

Ratios are QEMU's time for the same work divided by ours: above 1 we are faster.
"""
import io
import os
import resource
import shutil
import subprocess
import sys
import tarfile
import tempfile

import versus
from guest import Guest, Share


def make_tree(path, files):
    """Directories of 50 files, sized as a kernel's sources are: 16 KiB in the mean, half of them below 8 KiB."""
    with tarfile.open(path, "w") as archive:
        for number in range(files):
            share = number * 7919 % 1000 / 1000
            data = f"/* file {number:7} */\n".encode() * (10 + int(3200 * share ** 3))
            entry = tarfile.TarInfo(f"tree/part-{number // 50}/file-{number}.c")
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
            archive.members.clear()


def git(folder, *arguments):
    subprocess.run(["git", "-c", "user.name=bench", "-c", "user.email=bench@example.org", "-c", "gc.auto=0",
                    "-C", folder, *arguments], check=True, stdout=subprocess.DEVNULL)


def make_share(folder, tree, with_git):
    """What the first peer finds in its directory."""
    os.mkdir(folder)
    with open(f"{folder}/fio.data", "wb") as data:
        for _ in range(64):
            data.write(os.urandom(1 << 20))
    if not with_git:
        return
    if not shutil.which("git"):
        versus.progress("no git on this host: nothing to check out")
        return
    work = f"{folder}/repository"
    os.mkdir(work)
    with tarfile.open(tree) as archive:
        archive.extractall(work)
    git(work, "init", "-q")
    git(work, "add", ".")
    git(work, "commit", "-q", "-m", "tree")
    shutil.rmtree(f"{work}/tree")


def known_files_fit(files):
    """Whether the peer's server may have as many files open: it keeps each that its guest knows."""
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    if most != resource.RLIM_INFINITY and files + files // 50 + 500 > most:
        versus.progress(f"virtiofsd keeps a file open for each that the guest knows, and this host allows {most} "
                        "(ulimit -Hn): --files must be fewer, the limit higher, or --theirs 9p")
        return False
    return True


def main():
    parser = versus.arguments(__doc__)
    parser.add_argument("--seconds", type=int, default=2, help="each measurement of fio takes one more")
    parser.add_argument("--files", type=int, default=2000, help="of the archive; a kernel has 80000: 1.3 GB, "
                        "four times that for a while, and a limit of open files (ulimit -Hn) above it")
    parser.add_argument("--folder", help="where the shared directories are made; it decides on their file system")
    parser.add_argument("--cache", default="auto", help="cache mode of virtio-fs")
    parser.add_argument("--theirs", default="virtiofsd", choices=("virtiofsd", "9p"),
                        help="what QEMU shares with; 9p may cache as much as it can (cache=loose)")
    args = parser.parse_args()
    if args.theirs == "virtiofsd" and not known_files_fit(args.files):
        return 2
    # The archive is a disk to the guests: there it need not fit into memory, nor come through the share.
    made = os.path.abspath(tempfile.mkdtemp(prefix="pvshare", dir=args.folder))
    tree = f"{made}/tree.tar"
    shares = []

    def start(setup, peer):
        folder = f"{made}/{versus.file_name(peer)}"
        if shares:
            shutil.copytree(shares[0], folder, symlinks=True)
        else:
            make_tree(tree, args.files)
            make_share(folder, tree, not args.only or any("git" in word for word in args.only))
        shares.append(folder)
        disk = {"format": "raw", "cache": "writeback", "aio": "threads", "readonly": True}
        words = f"seconds={args.seconds}" + (" sharing=9p" if peer == "qemu" and args.theirs == "9p" else "")
        return Guest(setup, peer, f"bench-share {words}", args.disk, scratch=(tree, disk),
                     share=Share(folder, args.cache, args.theirs))

    try:
        rows = versus.measure(args, max(600, args.files // 20), start, lambda seconds: f"{seconds:.3f} s",
                              same_result=True)
    finally:
        shutil.rmtree(made, ignore_errors=True)
    return versus.show(args, rows, args.theirs, "s", lambda seconds: f"{seconds:.3f}")


if __name__ == "__main__":
    sys.exit(main())
