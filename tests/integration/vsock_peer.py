"""The host's side of a vsock for test_vsock.sh.

vsock_peer.py echo SOCKET PORT FILE [N]   N connections at once to an echo in the guest: FILE comes back
vsock_peer.py hold SOCKET PORT            connect, say "ready", wait for the end of the connection
vsock_peer.py serve PATH                  listen; give back what each client sends
vsock_peer.py greet SOCKET TEXT           send TEXT; print the answer
vsock_peer.py bridge PATH SOCKET          listen as a machine's vsock does; SOCKET is the guest's side
vsock_peer.py liar PATH [endless]         likewise, with an agent that says what it should not
vsock_peer.py sender PATH FILE [ERROR]    likewise, whatever it is asked for it says FILE, and ERROR beside it
vsock_peer.py flood PATH                  likewise, with one that keeps the rules and never stops sending
vsock_peer.py stranger PATH VERSION       likewise, with an agent that speaks that version of the protocol
vsock_peer.py babbler PATH                likewise, with one whose frames make no sense
vsock_peer.py deaf PATH                   likewise, with an agent that never ends what it was asked for
vsock_peer.py mute PATH                   listen, accept nobody, and have no room for more
vsock_peer.py trees FOLDER                make hostile archives of trees there
vsock_peer.py builtin SOCKET WORD...      have the agent behind SOCKET do WORD itself; print its status
"""
import os
import io
import socket
import struct
import sys
import tarfile
import threading


def connect(path, port):
    peer = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    peer.settimeout(400)
    peer.connect(path)
    peer.sendall(b"CONNECT %d\n" % port)
    line = b""
    while not line.endswith(b"\n"):
        byte = peer.recv(1)
        if not byte:
            raise SystemExit("refused")
        line += byte
    if not line.startswith(b"OK "):
        raise SystemExit(f"strange answer {line!r}")
    return peer


def receive_all(peer):
    parts = []
    while part := peer.recv(65536):
        parts.append(part)
    return b"".join(parts)


def echo(path, port, data, results, index):
    peer = connect(path, port)

    def send():
        peer.sendall(data)
        peer.shutdown(socket.SHUT_WR)

    sender = threading.Thread(target=send)
    sender.start()
    results[index] = receive_all(peer) == data
    sender.join()


def pass_on(source, target):
    try:
        while part := source.recv(65536):
            target.sendall(part)
        target.shutdown(socket.SHUT_WR)
    except OSError:
        source.close()
        target.close()


def bridge_one(client, path):
    line = b""
    while not line.endswith(b"\n"):
        byte = client.recv(1)
        if not byte:
            return
        line += byte
    guest = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        guest.connect(path)
    except OSError:
        client.close()
        return
    client.sendall(b"OK 1\n")
    threading.Thread(target=pass_on, args=(guest, client), daemon=True).start()
    pass_on(client, guest)


def command_bridge(path, guest_path):
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(path)
    listener.listen(64)
    while True:
        client, _ = listener.accept()
        threading.Thread(target=bridge_one, args=(client, guest_path), daemon=True).start()


def frame(kind, body):
    return struct.pack("<IB3x", len(body), kind) + body


def greet(client, version=1):
    """libshared/agent/protocol.h: WELCOME."""
    line = b""
    while not line.endswith(b"\n"):
        line += client.recv(1)
    client.sendall(b"OK 1\n" + frame(2, struct.pack("<IIQ", version, 0, 0)))


def say(client, stream, text, at=0):
    """OUTPUT, from its byte `at` on. Where it ended."""
    for start in range(0, len(text), 30000):
        part = text[start:start + 30000]
        client.sendall(frame(5, struct.pack("<QII", at + start, stream, 0) + part))
    return at + len(text)


def end(client):
    """ENDED, with success."""
    client.sendall(frame(9, struct.pack("<II", 0, 0)))


def lie(client, endless):
    greet(client)
    text = (b"isa \x1b[2J\xff\nkernel " + b"x" * 200 + b"\nuptime_s 99999999999999999999\nagent_uptime_s -5x\n"
            b"version\nversion \nclock_steps 7\nnonsense 1\n\0behind")
    at = say(client, 0, text)
    while endless:
        at = say(client, 0, b"x" * 30000, at)
    end(client)
    client.recv(65536)


def send(client, file, error):
    greet(client)
    threading.Thread(target=receive_all, args=(client,), daemon=True).start()
    with open(file, "rb") as stream:
        say(client, 0, stream.read())
    say(client, 1, error.encode().decode("unicode_escape").encode())
    end(client)


def flood(client):
    """CONFIRM says how much it has: 256 KiB more may be on their way."""
    greet(client)
    stream, confirmed, at = client.makefile("rb"), 0, 0
    while True:
        while at - confirmed < 200000:
            at = say(client, 0, b"x" * 30000, at)
        length, kind = struct.unpack("<IB3x", stream.read(8))
        body = stream.read(length)
        if kind == 6:
            confirmed = struct.unpack("<QQ", body)[0]


def babble(client):
    greet(client)
    client.sendall(frame(5, b"short"))


def heed_nothing(client):
    greet(client)
    say(client, 0, b"begun\n")


def serve_one(client, agent, arguments):
    try:
        agent(client, *arguments)
        while client.recv(65536):
            pass
    except (OSError, struct.error):
        pass
    client.close()


def serve_agents(path, agent, *arguments):
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(path)
    listener.listen(64)
    while True:
        client, _ = listener.accept()
        threading.Thread(target=serve_one, args=(client, agent, arguments), daemon=True).start()


def command_liar(path, endless=""):
    serve_agents(path, lie, endless)


def command_sender(path, file, error=""):
    serve_agents(path, send, file, error)


def command_flood(path):
    serve_agents(path, flood)


def command_stranger(path, version):
    serve_agents(path, greet, int(version))


def command_babbler(path):
    serve_agents(path, babble)


def command_deaf(path):
    serve_agents(path, heed_nothing)


def command_mute(path):
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(path + ".new")
    listener.listen(0)
    waiting = []
    try:
        while True:
            waiting.append(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
            waiting[-1].setblocking(False)
            waiting[-1].connect(path + ".new")
    except BlockingIOError:
        os.rename(path + ".new", path)
    threading.Event().wait()


def command_trees(folder):
    """FOLDER/dest/out leads to FOLDER/outside, as an earlier copy may have left it."""
    def entry(archive, name, data=b"evil\n", **more):
        info = tarfile.TarInfo(name)
        info.mode = 0o6755
        for key, value in more.items():
            setattr(info, key, value)
        info.size = len(data) if info.isreg() else 0
        archive.addfile(info, io.BytesIO(data))

    def tree(name, make):
        with tarfile.open(f"{folder}/{name}.tar", "w") as archive:
            make(archive)

    outside = os.path.abspath(f"{folder}/outside")
    tree("through", lambda a: entry(a, "out/made"))
    tree("above", lambda a: entry(a, "../outside/made"))
    tree("root", lambda a: entry(a, f"{outside}/made"))
    tree("new-link", lambda a: (entry(a, "way", type=tarfile.SYMTYPE, linkname=outside), entry(a, "way/made")))
    tree("hard-link", lambda a: (entry(a, "l", type=tarfile.LNKTYPE, linkname="out/secret"), entry(a, "l")))
    tree("hard-link-up", lambda a: (entry(a, "l", type=tarfile.LNKTYPE, linkname="../outside/secret"), entry(a, "l")))
    tree("folder", lambda a: entry(a, "out/made", type=tarfile.DIRTYPE))
    tree("mode", lambda a: entry(a, "out", type=tarfile.DIRTYPE, mode=0o700))
    tree("harmless", lambda a: (entry(a, "./", type=tarfile.DIRTYPE, mode=0o755), entry(a, "./file"),
                                entry(a, "./link", type=tarfile.SYMTYPE, linkname="/nowhere")))
    return True


def command_builtin(path, *words):
    """libshared/agent/protocol.h: HELLO, START, until ENDED."""
    peer = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    peer.settimeout(400)
    peer.connect(path)
    text = b"".join(word.encode() + b"\0" for word in words) + b"\0"
    for kind, body in ((1, struct.pack("<II16sQQ", 0x47415650, 1, os.urandom(16), 0, 0)),
                       (3, struct.pack("<IHHII", 2, 0, 0, len(words), 0) + text)):
        peer.sendall(struct.pack("<IB3x", len(body), kind) + body)
    stream = peer.makefile("rb")
    while True:
        length, kind = struct.unpack("<IB3x", stream.read(8))
        body = stream.read(length)
        if kind == 9:
            print(struct.unpack("<II", body)[1])
            return


def command_echo(path, port, file, count="1"):
    with open(file, "rb") as stream:
        data = stream.read()
    results = [False] * int(count)
    threads = [threading.Thread(target=echo, args=(path, int(port), data, results, i))
               for i in range(len(results))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    print(f"{sum(results)} of {len(results)} came back whole")
    return all(results)


def command_hold(path, port):
    peer = connect(path, int(port))
    print("ready", flush=True)
    try:
        return receive_all(peer) == b""
    except ConnectionResetError:
        return True


def command_serve(path):
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(path)
    listener.listen(64)
    while True:
        client, _ = listener.accept()

        def give_back(client=client):
            try:
                while data := client.recv(65536):
                    client.sendall(data)
            except OSError:
                pass
            client.close()

        threading.Thread(target=give_back, daemon=True).start()


def command_greet(path, text):
    peer = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    peer.settimeout(400)
    peer.connect(path)
    peer.sendall(os.fsencode(text))
    try:
        print(receive_all(peer))
    except ConnectionResetError:
        print(b"")  # it was closed before all of the text was read
    return True


sys.exit(0 if globals()["command_" + sys.argv[1]](*sys.argv[2:]) else 1)
