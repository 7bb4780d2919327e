"""HTTP as a client speaks it, and as none should."""
import collections
import http.client
import json
import random
import socket
import time

Answer = collections.namedtuple("Answer", "status headers body seconds")


class Wrong(Exception):
    """The node did what it must not."""


def free_port():
    """A port that nobody has, for TCP and UDP."""
    while True:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp, socket.socket() as tcp:
            udp.bind(("127.0.0.1", random.randrange(20_000, 32_000)))
            try:
                tcp.bind(udp.getsockname())
            except OSError:
                continue
            return udp.getsockname()[1]


def ask(port, method, path, body=None, headers=None, timeout=30):
    """One request on a connection of its own. `body`: bytes, or anything for JSON."""
    headers = dict(headers or {})
    if body is not None and not isinstance(body, bytes):
        body = json.dumps(body).encode()
    if body is not None:
        headers.setdefault("Content-Type", "application/json")
    begin = time.monotonic()
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout)
    try:
        connection.request(method, path, body=body, headers=headers)
        answer = connection.getresponse()
        return Answer(answer.status, dict(answer.getheaders()), answer.read(), time.monotonic() - begin)
    except http.client.HTTPException as error:
        raise ConnectionError(f"{type(error).__name__}: {error}") from error
    finally:
        connection.close()


def connect(port, timeout=30):
    return socket.create_connection(("127.0.0.1", port), timeout=timeout)


def raw(port, data, timeout=20):
    """All that comes back for these bytes, until the peer closes or says nothing for `timeout`."""
    with connect(port, timeout) as peer:
        try:
            peer.sendall(data)
        except OSError:
            pass  # it may answer and close before all is sent
        return rest(peer)


def rest(peer):
    answer = b""
    try:
        while received := peer.recv(65536):
            answer += received
    except OSError:
        pass
    return answer


def status(answer):
    """The status of a raw answer, 0 = closed without one."""
    words = answer.split(b" ", 2)
    return int(words[1]) if answer.startswith(b"HTTP/") and len(words) > 1 else 0


def json_of(answer):
    """The body of an answer, which must be JSON."""
    try:
        return json.loads(answer.body)
    except ValueError as error:
        raise Wrong(f"an answer of {answer.status} is no JSON: {answer.body[:80]!r}") from error
