"""Requests that no sound client makes: slow, broken, too large, costly to refuse, or of foreign pages."""
import json
import socket
import time

from . import wire
from .cases import case

SLOW_AT_ONCE = 60
# docs/http.md: a head has 15 s, a body 10 s.
HEAD_S, BODY_S, LATE_S = 15, 10, 5
# No answer that refuses something is longer (chosen: 32 problems of some hundred bytes, with room).
REFUSAL_BYTES = 64 * 1024


def slow(one, opening, limit, allowed):
    """`opening`, then a byte a second on each connection, until all are closed."""
    peers, begin = [], time.monotonic()
    for _ in range(SLOW_AT_ONCE):
        try:
            peer = wire.connect(one.http)
            peer.sendall(opening)
            peer.setblocking(False)
            peers.append(peer)
        except OSError:
            one.count("closed")
    while peers and time.monotonic() - begin < limit + LATE_S:
        for peer in list(peers):
            try:
                peer.send(b"x")
                answer = peer.recv(4096)
            except BlockingIOError:
                continue
            except OSError:
                answer = b""
            peers.remove(peer)
            peer.close()
            status = wire.status(answer)
            one.count(status or "closed")
            if status not in allowed:
                one.wrong(f"a slow client got {answer[:80]!r}")
        time.sleep(1)
    if peers:
        one.wrong(f"{len(peers)} slow connections were not closed within {limit + LATE_S} s")
    for peer in peers:
        peer.close()


@case("slow heads", (10, 30))
def slow_heads(one):
    slow(one, b"GET /health HTTP/1.1\r\nHost: localhost\r\nX-Slow: ", HEAD_S, (0, 408, 503))


@case("slow bodies", (10, 30))
def slow_bodies(one):
    head = b"POST /api/v1/devices HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 100000\r\n\r\n"
    slow(one, head, BODY_S, (0, 408, 503))


@case("bodies a piece short", (20, 40))
def bodies_short(one):
    head = b"POST /api/v1/devices HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 1048576\r\n\r\n"
    peers = []
    for _ in range(SLOW_AT_ONCE):
        try:
            peers.append(wire.connect(one.http))
            peers[-1].sendall(head + b" " * (1048576 - 100))
        except OSError:
            one.count("closed")
    for peer in peers:
        peer.settimeout(BODY_S + LATE_S)
        try:
            status = wire.status(peer.recv(4096))
            one.count(status or "closed")
            if status not in (0, 408, 503):
                one.wrong(f"a body that did not come whole got {status}")
        except TimeoutError:
            one.wrong(f"a body that does not come is waited for longer than {BODY_S + LATE_S} s")
        except OSError:
            one.count("closed")
        peer.close()


@case("bodies too large", (5, 10))
def bodies_large(one):
    head = "POST /api/v1/devices HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    sized = f"{head}Content-Length: 200000000\r\n\r\n".encode()
    one.raw(sized + b" " * 100_000, (413,), "200 MB announced")
    chunked = f"{head}Transfer-Encoding: chunked\r\n\r\n".encode()
    one.raw(chunked + (b"10000\r\n" + b" " * 65536 + b"\r\n") * 20, (413,), "chunks without an end")


MALFORMED = [
    # what, head without the end, statuses
    ("two lengths", "POST /api/v1/devices HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\nContent-Length: 2", (400,)),
    ("length +2", "POST /api/v1/devices HTTP/1.1\r\nHost: localhost\r\nContent-Length: +2", (400,)),
    ("length -1", "POST /api/v1/devices HTTP/1.1\r\nHost: localhost\r\nContent-Length: -1", (400,)),
    ("length 2^64", "POST /api/v1/devices HTTP/1.1\r\nHost: localhost\r\nContent-Length: 18446744073709551616", (400,)),
    ("length 2^64-1", "POST /api/v1/devices HTTP/1.1\r\nHost: localhost\r\nContent-Length: 18446744073709551615", (400, 413, 431)),
    ("another coding", "POST /api/v1/devices HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: xchunked", (400, 501)),
    ("chunked, identity", "POST /api/v1/devices HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked, identity", (400, 501)),
    ("no method", "\x00\x01\x02\x03 / HTTP/1.1\r\nHost: localhost", (400,)),
    ("BREW", "BREW /health HTTP/1.1\r\nHost: localhost", (400, 405, 501)),
    ("CONNECT", "CONNECT localhost:22 HTTP/1.1\r\nHost: localhost", (400, 405)),
    ("TRACE", "TRACE / HTTP/1.1\r\nHost: localhost\r\nX-A: secret", (405,)),
    ("PATCH", "PATCH /health HTTP/1.1\r\nHost: localhost", (405,)),
    ("version 3.7", "GET /health HTTP/3.7\r\nHost: localhost", (400, 505)),
    ("no host", "GET /health HTTP/1.1", (400, 421)),
    ("two hosts", "GET /health HTTP/1.1\r\nHost: localhost\r\nHost: evil.example", (400, 421)),
    ("bare CR", "GET /health HTTP/1.1\r\nHost: localhost\r\nX-A: a\rb", (400,)),
    ("NUL", "GET /health HTTP/1.1\r\nHost: localhost\r\nX-A: a\0b", (400,)),
    ("folded", "GET /health HTTP/1.1\r\nHost: localhost\r\nX-A: a\r\n b", (400,)),
    ("blank before colon", "GET /health HTTP/1.1\r\nHost : localhost", (400,)),
    ("head of 9 KiB", "GET /health HTTP/1.1\r\nHost: localhost\r\nX-A: " + "a" * 9216, (431,)),
    ("target of 9 KiB", "GET /" + "a" * 9216 + " HTTP/1.1\r\nHost: localhost", (400, 414, 431)),
    ("200 headers", "GET /health HTTP/1.1\r\nHost: localhost" + "".join(f"\r\nX-{i}: a" for i in range(200)), (431,)),
    ("expect garbage", "GET /health HTTP/1.1\r\nHost: localhost\r\nExpect: the-worst\r\nConnection: close", (200, 417)),
]


@case("malformed requests", (1, 3))
def malformed(one):
    for what, head, allowed in MALFORMED:
        answer = one.raw(head.encode("latin-1") + b"\r\n\r\n", allowed, what, timeout=17)
        if b"secret" in answer:
            one.wrong(f"{what}: the request came back")
    one.raw(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\xaa" * 508 + b"\r\n\r\n", (400,), "TLS")
    one.raw(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", (400, 505), "HTTP/2")
    chunks = b"POST /api/v1/devices HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
    one.raw(chunks + b"fffffffffffffffff\r\n", (400,), "a chunk size beyond 64 bits")
    one.raw(chunks + b"1;" + b"a" * 65536 + b"\r\n", (400, 413, 431), "a chunk extension of 64 KiB")
    # What follows a body that is not read must not be taken for a request.
    hidden = b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n"
    body = b"POST /api/v1/nothing HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % len(hidden)
    answer = one.raw(body + hidden, (404,), "a request in a body")
    if answer.count(b"HTTP/1.1 ") > 1:
        one.wrong("a body was taken for a request")


def bombs(chance):
    """(what, body): about 1 MiB each, and none of it right."""
    many = 300_000
    yield "empty streams", b'{"streams":[' + b",".join([b"{}"] * many) + b"]}"
    yield "numbers for streams", b'{"streams":[' + b",".join([b"0"] * 500_000) + b"]}"
    yield "unknown keys", b"{" + b",".join(b'"k%d":0' % i for i in range(90_000)) + b"}"
    roles = b",".join(b"%d" % i for i in range(chance.choice((40_000, 140_000))))
    yield "roles", b'{"streams":[{"name":"main","url":"rtsp://127.0.0.1:1/","roles":[' + roles + b"]}]}"
    yield "a key of 1 MB", b'{"' + b"k" * 1_000_000 + b'":0}'
    yield "a name of 1 MB", b'{"name":"' + b"n" * 1_000_000 + b'","rtsp_url":"rtsp://127.0.0.1:1/"}'
    yield "an address of 1 MB", b'{"name":"n","rtsp_url":"rtsp://127.0.0.1:1/' + b"u" * 1_000_000 + b'"}'


@case("JSON of 1 MiB", (5, 15))
def json_bombs(one):
    for what, body in bombs(one.chance):
        for path in ("/api/v1/devices/validate", "/api/v1/devices"):
            answer = one.ask("POST", path, body, (422, 413), timeout=60)
            if answer and len(answer.body) > REFUSAL_BYTES:
                one.wrong(f"{what}: refused with {len(answer.body)} bytes")
    what, body = one.chance.choice(list(bombs(one.chance)))
    one.together(16, lambda _: one.ask("POST", "/api/v1/devices/validate", body, (422, 413), timeout=120))


GARBAGE = [
    b"[" * 100_000, b'{"a":' * 100_000, b'{"name":1e400}', b'{"name":' + b"9" * 400 + b"}", b'{"name":NaN}', b"\xef\xbb\xbf{}",
    '{"name":"a"}'.encode("utf-16"), b"{} {}", b"[]", b'""', b"null", b"", b'{"name":"\\ud800","rtsp_url":"rtsp://127.0.0.1:1/a"}',
    b'{"name":"\xff\xfe","rtsp_url":"rtsp://127.0.0.1:1/a"}', b'{"name":"n"', b"\0" * 1000,
]


@case("JSON that is none", (2, 5))
def json_garbage(one):
    for body in GARBAGE:
        answer = one.ask("POST", "/api/v1/devices", body, (400, 422))
        if answer and len(answer.body) > REFUSAL_BYTES:
            one.wrong(f"{body[:20]!r}: refused with {len(answer.body)} bytes")
    for kind in ("text/plain", "multipart/form-data", "application/x-www-form-urlencoded"):
        one.ask("POST", "/api/v1/devices", b"{}", (415,), {"Content-Type": kind})


@case("names of files", (2, 5))
def names(one):
    camera = f"/api/v1/recordings/devices/{one.cameras[0]}"
    wrong = ["..", "%2e%2e", "%2f", "%252e", "%5c", "%00", "index", "20260101/index", "a.mp4", "//", ".", "%", "%zz", "%ff",
             "%e2%80%8f", "a" * 4000, "99999999T999999.999999Z.mp4", "../../../../etc/passwd", "..%2f..%2f..%2fcontrol.redb"]
    for name in wrong:
        answer = one.ask("GET", f"{camera}/{name}", None, (400, 404, 405, 422, 200))
        if answer and answer.status == 200 and b"root:" in answer.body:
            one.wrong(f"{name} read a file of the system")
    for part in ("10-0", "0-0", "0-18446744073709551615", "18446744073709551616-1", "-1-5", "+0-5"):
        one.ask("GET", f"{camera}/20260101T000000.000000Z.{part}.m4s", None, (404, 422))
    for ident in ("%00", "%2f", "x" * 65, "x" * 3000, "%f0%9f%92%a9", "..%2f.."):
        for path in (f"/api/v1/devices/{ident}", f"/api/v1/snapshots/{ident}", f"/api/v1/bookmarks/{ident}", f"/api/v1/ai-events/{ident}"):
            one.ask("GET", path, None, (400, 404, 422))


VALUES = ["NaN", "-1", "1e3", "9" * 21, "0x10", "%00", "%ff", ";", "%27", "a" * 3000, "%d9%a1", "1970-01-01", "9999-12-31T23:59:59Z",
          "2026-11-30T00:00:00%5BEurope/Berlin%5D", "24:00", "-271821-04-20T00:00:00Z"]
QUERIES = [("/api/v1/ai-events", ("camera_id", "model_id", "start_time", "end_time", "class_id", "class", "limit", "offset", "cursor")),
           ("/api/v1/bookmarks", ("device_id", "skip", "limit")), ("/api/v1/snapshots", ("device_id", "skip", "limit")),
           ("/api/v1/devices", ("skip", "limit")), ("/api/streams", ("camera_id",))]


@case("queries", (2, 5))
def queries(one):
    camera = f"/api/v1/recordings/devices/{one.cameras[0]}"
    more = [(f"{camera}/playlist", ("date", "start_time", "end_time", "start", "end")), (f"{camera}/timeline", ("start", "end")),
            (f"/api/v1/devices/{one.cameras[0]}/frame.jpg", ("max_age_ms",))]
    for path, keys in QUERIES + more:
        for key in keys:
            one.ask("GET", f"{path}?{key}={one.chance.choice(VALUES)}", None, (200, 400, 404, 422))
        one.ask("GET", f"{path}?unknown=1&{keys[0]}=1&{keys[0]}=2", None, (422,))
    answer = one.ask("GET", "/api/v1/ai-events?" + "&".join(["a"] * 3900), None, (422, 431))
    if answer and len(answer.body) > REFUSAL_BYTES:
        one.wrong(f"3900 unknown parameters: refused with {len(answer.body)} bytes")
    ranges = ["bytes=" + ",".join(f"{i}-{i}" for i in range(1300)), "bytes=9-1", "bytes=-0", "bytes=99999999999999999999-", "lines=0-1"]
    for value in ranges:
        one.ask("GET", "/whep.js", None, (200, 206, 416, 431), {"Range": value})


HOSTS = ["evil.example", "127.0.0.1.nip.io", "127.1", "2130706433", "0x7f.1", "0.0.0.0", "localhost:evil", "127.0.0.1:evil.example",
         "[::1].evil.example", "[::1]evil.example", "[::1", "user@localhost", "localhost,evil", "localhost evil", "h" * 4000]


@case("pages of other sites", (2, 5))
def foreign(one):
    for host in HOSTS:
        one.raw(f"GET /health HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode(), (400, 421), f"Host {host[:30]}")
    writes = [("POST", f"/api/v1/devices/{one.cameras[0]}/stop-stream"), ("POST", f"/api/v1/snapshots/devices/{one.cameras[0]}/capture/live"),
              ("DELETE", f"/api/v1/devices/{one.cameras[0]}")]
    for headers in ({"Origin": "http://evil.example"}, {"Origin": "null"}, {"Sec-Fetch-Site": "cross-site"}, {"Origin": "http://localhost:1"},
                    {"Origin": "http://evil.example", "Content-Type": "text/plain"}):
        for method, path in writes:
            one.ask(method, path, None, (403, 415), headers)
    # What they can't read must not be computed either.
    for path in (f"/api/v1/recordings/devices/{one.cameras[0]}/timeline?start=1970-01-02&end=1970-02-01", "/api/v1/ai-events?limit=1000",
                 f"/api/v1/recordings/devices/{one.cameras[0]}/playlist"):
        one.ask("GET", path, None, (403,), {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors", "Sec-Fetch-Dest": "empty"})


@case("resets", (10, 20))
def resets(one):
    """Half of them with an answer that nobody reads."""
    for i in range(500):
        try:
            peer = wire.connect(one.http)
        except OSError:
            one.count("closed")
            continue
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        if i % 2:
            peer.sendall(b"GET /openapi.json HTTP/1.1\r\nHost: localhost\r\n\r\n")
        peer.close()
        one.count("reset")


@case("pipelines", (5, 10))
def pipelines(one):
    requests = b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n" * 99
    answer = one.raw(requests + b"GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n", (200,), "100 requests in a row")
    if answer and wire.status(answer) == 200 and answer.count(b"HTTP/1.1 200") != 100:
        one.wrong(f"of 100 requests in a row {answer.count(b'HTTP/1.1 200')} were answered")
    json.loads(answer.rsplit(b"\r\n\r\n", 1)[1] or b"{}") if wire.status(answer) == 200 else None
