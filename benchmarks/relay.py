"""The floor of a chain: hops, commits and spawn of one dependency without any Jobmon code. Standard library only.

`python -I -S relay.py COUNT FOLDER` prints as JSON the milliseconds per round, and the maximum of the fastest tenth,
which hardly depends on other load of the machine. In a round, "distributor" sends a message to "server", which commits
a line to disk and notifies "client"; "client" responds, "server" commits and notifies "distributor", which spawns the
shell and waits for it. That is three processes, four messages over Unix sockets and two commits, as many as a
dependency in Jobmon, so that a busy machine slows both alike.
"""

import json
import os
import resource
import select
import socket
import sys
import time

MESSAGE_BYTES = 512


def serve(distributor, client, path):
    """Forward each message after a commit."""
    log = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    poll = select.poll()
    others = {distributor.fileno(): (distributor, client), client.fileno(): (client, distributor)}
    for descriptor in others:
        poll.register(descriptor, select.POLLIN)
    while True:
        for descriptor, _ in poll.poll():
            sender, receiver = others[descriptor]
            message = sender.recv(MESSAGE_BYTES)
            if not message:
                return
            os.write(log, message)
            os.fdatasync(log)
            receiver.send(message)


def answer(server):
    """Send each message back."""
    while message := server.recv(MESSAGE_BYTES):
        server.send(message)


def spawn_and_wait(folder):
    actions = [
        (os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDONLY, 0),
        (os.POSIX_SPAWN_OPEN, 1, f"{folder}/log", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666),
        (os.POSIX_SPAWN_DUP2, 1, 2),
    ]
    pid = os.posix_spawn("/bin/sh", ["/bin/sh", "-c", "true"], os.environ, file_actions=actions, setpgroup=0)
    os.waitpid(pid, 0)


def in_process(work, lines, *arguments):
    """Call a function in a separate process that has only its own connections."""
    pid = os.fork()
    if pid == 0:
        for line in lines:
            line.close()
        work(*arguments)
        os._exit(0)
    return pid


def main():
    count, folder = int(sys.argv[1]), sys.argv[2]
    here, to_distributor = socket.socketpair()
    to_client, client = socket.socketpair()
    children = [
        in_process(serve, [here, client], to_distributor, to_client, f"{folder}/commits"),
        in_process(answer, [here, to_distributor, to_client], client),
    ]
    for line in (to_distributor, to_client, client):
        line.close()
    rounds = []
    for _ in range(count):
        start = time.perf_counter()
        here.send(b"x" * MESSAGE_BYTES)
        here.recv(MESSAGE_BYTES)
        spawn_and_wait(folder)
        rounds.append(1000 * (time.perf_counter() - start))
    here.close()
    for pid in children:
        os.waitpid(pid, 0)
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    cpu = sum(one.ru_utime + one.ru_stime for one in used)
    undisturbed = sorted(rounds)[count // 10]
    found = {"milliseconds": sum(rounds) / count, "undisturbed_milliseconds": undisturbed}
    json.dump({"count": count, **found, "cpu_milliseconds": 1000 * cpu / count}, sys.stdout)


if __name__ == "__main__":
    main()
