"""Live view: offers of every kind, and what comes to its UDP port."""
import binascii
import hashlib
import hmac
import os
import select
import socket
import struct
import time

from .cases import BUSY, case

MAGIC = 0x2112A442
ANSWER_S = 1


def offer(ufrag="vasa", password="abusepasswordabusepassword"):
    """What a browser offers to receive H.264."""
    fingerprint = ":".join(f"{byte:02X}" for byte in hashlib.sha256(ufrag.encode()).digest())
    lines = ["v=0", "o=- 4611731400430051336 2 IN IP4 127.0.0.1", "s=-", "t=0 0", "a=group:BUNDLE 0", "a=msid-semantic: WMS",
             "m=video 9 UDP/TLS/RTP/SAVPF 102", "c=IN IP4 0.0.0.0", "a=rtcp:9 IN IP4 0.0.0.0", f"a=ice-ufrag:{ufrag}", f"a=ice-pwd:{password}",
             "a=ice-options:trickle", f"a=fingerprint:sha-256 {fingerprint}", "a=setup:actpass", "a=mid:0", "a=recvonly", "a=rtcp-mux",
             "a=rtcp-rsize", "a=rtpmap:102 H264/90000", "a=rtcp-fb:102 nack", "a=rtcp-fb:102 nack pli", "a=rtcp-fb:102 ccm fir",
             "a=fmtp:102 level-asymmetry-allowed=1;packetization-mode=1;profile-level-id=42e01f"]
    return "\r\n".join(lines) + "\r\n"


SDP = {"Content-Type": "application/sdp"}


def view(one, camera, text=None):
    """(answer in SDP, session path), or None when refused for now."""
    answer = one.ask("POST", f"/api/v1/devices/{camera}/whep", (text or offer()).encode(), (201,), SDP)
    if answer is None or answer.status != 201:
        return None
    headers = {name.lower(): value for name, value in answer.headers.items()}
    return answer.body.decode(), headers["location"]


def attribute(sdp, name):
    return next(line.split(":", 1)[1] for line in sdp.splitlines() if line.startswith(f"a={name}:"))


def binding(sdp, priority=1):
    """A STUN binding request that has the right user and password (RFC 5389, 8445)."""

    def attributes(*pairs):
        return b"".join(struct.pack(">HH", kind, len(value)) + value + b"\0" * (-len(value) % 4) for kind, value in pairs)

    def message(body, more):
        return struct.pack(">HHI", 1, len(body) + more, MAGIC) + transaction + body

    transaction = os.urandom(12)
    user = f"{attribute(sdp, 'ice-ufrag')}:vasa".encode()
    body = attributes((0x0006, user), (0x0024, struct.pack(">I", priority)), (0x802A, os.urandom(8)))
    proof = hmac.new(attribute(sdp, "ice-pwd").encode(), message(body, 24), hashlib.sha1).digest()
    body += attributes((0x0008, proof))
    check = binascii.crc32(message(body, 8)) ^ 0x5354554E
    return message(body + attributes((0x8028, struct.pack(">I", check))), 0)


def answered(one, sdp):
    """Seconds until a binding request of an ordinary viewer is answered, None = never."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as peer:
        begin = time.monotonic()
        while time.monotonic() - begin < 5 * ANSWER_S:
            peer.sendto(binding(sdp), ("127.0.0.1", one.udp))
            if select.select([peer], [], [], 0.5)[0]:
                peer.recv(2048)
                return time.monotonic() - begin
    return None


def flood(one, datagrams, sources, rate, seconds):
    """Datagrams from so many ports."""
    sockets = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(sources)]
    begin, sent = time.monotonic(), 0
    while time.monotonic() - begin < seconds:
        try:
            sockets[sent % sources].sendto(datagrams(sent), ("127.0.0.1", one.udp))
        except OSError:
            pass
        sent += 1
        time.sleep(max(0, begin + sent / rate - time.monotonic()))
    for peer in sockets:
        peer.close()
    one.counts["datagrams"] += sent


@case("STUN from many ports", (10, 20))
def stun(one):
    """One viewer with 900 addresses must not keep others from being answered."""
    first, other = view(one, one.cameras[0]), view(one, one.cameras[1])
    if first and other:
        # The limit of the operating system on descriptors stands in the way of more at a time.
        for _ in range(4):
            flood(one, lambda i: binding(first[0], i % 65536 + 1), 900, 2000, 1)
        waited = answered(one, other[0])
        if waited is None or waited > ANSWER_S:
            one.wrong(f"another viewer was answered after {waited or 'more than 5'} s")
    for session in filter(None, (first, other)):
        one.ask("DELETE", session[1], None, (204, 404))


@case("datagrams of no viewer", (10, 20))
def datagrams(one):
    session = view(one, one.cameras[2])
    kinds = [lambda i: os.urandom(1200), lambda i: b"", lambda i: b"\x16\xfe\xff" + os.urandom(200), lambda i: b"\x80\xc8" + os.urandom(60),
             lambda i: struct.pack(">HHI", 1, 0, MAGIC) + os.urandom(12), lambda i: os.urandom(60_000)]
    if session:
        wrong = binding(session[0])[:-30] + os.urandom(30)
        kinds.append(lambda i: wrong)
    for kind in kinds:
        flood(one, kind, 4, 2000, 1)
    if session:
        waited = answered(one, session[0])
        if waited is None or waited > ANSWER_S:
            one.wrong(f"a viewer was answered after {waited or 'more than 5'} s")
        one.ask("DELETE", session[1], None, (204, 404))


@case("offers", (10, 20))
def offers(one):
    """What is no offer, or one that takes long to read."""
    path, sound = f"/api/v1/devices/{one.cameras[0]}/whep", offer()
    refused = (400, 404, 406, 409, 413, 415, 422)
    texts = ["", "v=0", "\0" * 100, "v=0\r\n" * 10_000, sound.replace("a=mid:0\r\n", ""), sound.replace("sha-256 ", "md5 "),
             sound.replace("a=ice-ufrag:vasa\r\n", ""), sound.replace("vasa", "u" * 55_000), sound + "m=video 9 UDP/TLS/RTP/SAVPF 102\r\n" * 1300,
             sound + "".join(f"a=candidate:{i} 1 udp {i + 1} 127.0.0.1 {i + 1024} typ host\r\n" for i in range(1000)),
             sound.replace("102\r\nc=", " ".join(str(i) for i in range(1, 12_000)) + "\r\nc="), "a" * 65_537, "a" * 1_000_000]
    for text in texts:
        answer = one.ask("POST", path, text.encode(), refused + (201,), SDP)
        if answer and b"0x" in answer.body and b"PointerOffset" in answer.body:
            one.wrong("an error tells an address of the process")
        if answer and answer.status == 201:
            one.ask("DELETE", {n.lower(): v for n, v in answer.headers.items()}["location"], None, (204, 404))
    for _ in range(40):
        text = bytearray(sound.encode())
        for _ in range(one.chance.randrange(1, 20)):
            text[one.chance.randrange(len(text))] = one.chance.randrange(256)
        answer = one.ask("POST", path, bytes(text), refused + (201,), SDP)
        if answer and answer.status == 201:
            one.ask("DELETE", {n.lower(): v for n, v in answer.headers.items()}["location"], None, (204, 404))
    for _ in range(20):
        one.ask("DELETE", f"{path}/{one.chance.randrange(1 << 60):x}", None, (204, 404, 422))


@case("offers of a page of 16 cameras", (20, 40))
def page(one):
    """All sixteen at once, as a page does; none is to be turned away (docs/http.md)."""
    sessions = one.together(16, lambda i: one.ask("POST", f"/api/v1/devices/{one.cameras[i]}/whep", offer().encode(), (201,), SDP))
    turned_away = sum(answer is not None and answer.status == BUSY for answer in sessions)
    one.counts["turned away"] += turned_away
    for answer in sessions:
        if answer and answer.status == 201:
            one.ask("DELETE", {n.lower(): v for n, v in answer.headers.items()}["location"], None, (204, 404))
