"""RTSP cameras whose pictures carry numbers: in each a SEI message says which camera, session and picture.

What a camera sent is known afterwards, and so what recordings must hold. Interleaved over TCP only, on
loopback only, written from the RFCs (2326, 6184). hack/fake-camera is the one with faults.
"""
import base64
import dataclasses
import os
import pathlib
import select
import socket
import struct
import subprocess
import threading
import time

FPS = 10
# Two seconds between key pictures; the length is no multiple of anything, so that a picture out of place
# is seen to be another one.
CLIP_PICTURES = 140
KEY_EVERY = 20
RTP_PAYLOAD = 1400
TICKS = 90_000 // FPS
# Names our SEI messages (ITU-T H.264, D.1.7). No byte is below 4, so nothing has to be escaped.
UUID = b"vas-abuse-number"


@dataclasses.dataclass
class Picture:
    """The NAL units of one access unit, without start codes."""

    before: list  # parameter sets and the like
    slices: list

    @property
    def key(self):
        return self.slices[0][0] & 0x1F == 5


def make_clip(path):
    """Encodes the clip that all cameras play, once."""
    size, seconds = "320x240", CLIP_PICTURES / FPS
    subprocess.run(
        ["ffmpeg", "-nostdin", "-loglevel", "error", "-f", "lavfi", "-i", f"testsrc2=size={size}:rate={FPS}:duration={seconds}",
         "-c:v", "libx264", "-profile:v", "baseline", "-preset", "veryfast", "-pix_fmt", "yuv420p", "-threads", "1",
         "-x264-params", f"keyint={KEY_EVERY}:min-keyint={KEY_EVERY}:scenecut=0:bitrate=120:vbv-maxrate=120:vbv-bufsize=120",
         "-f", "h264", str(path)],
        check=True,
    )


def read_clip(path):
    """Takes an elementary stream apart into pictures of one or more slices."""
    stream = pathlib.Path(path).read_bytes()
    nals = [nal.rstrip(b"\0") for nal in stream.split(b"\0\0\1")[1:]]
    pictures, before = [], []
    for nal in nals:
        if nal[0] & 0x1F in (1, 5):
            if nal[1] & 0x80:  # first_mb_in_slice is 0
                pictures.append(Picture(before, []))
                before = []
            pictures[-1].slices.append(nal)
        elif nal[0] & 0x1F in (7, 8):
            before.append(nal)
    return pictures


def sei(camera, session, number):
    """A NAL unit that says which picture this is."""
    data = UUID + b"%d %d %d" % (camera, session, number)
    return bytes([6, 5, len(data)]) + data + b"\x80"


def read_sei(nal):
    """(camera, session, number), or None when the NAL unit is no such message."""
    if nal[:2] != b"\x06\x05" or nal[3:19] != UUID:
        return None
    return tuple(int(word) for word in nal[19 : 3 + nal[2]].split())


def packets(nals, timestamp, sequence, source):
    """RTP packets of one picture, interleaved: single NAL units and FU-A."""
    payloads = []
    for nal in nals:
        if len(nal) <= RTP_PAYLOAD:
            payloads.append(nal)
            continue
        chunks = [nal[at : at + RTP_PAYLOAD - 2] for at in range(1, len(nal), RTP_PAYLOAD - 2)]
        for at, chunk in enumerate(chunks):
            bits = (at == 0) << 7 | (at == len(chunks) - 1) << 6 | nal[0] & 0x1F
            payloads.append(bytes([nal[0] & 0xE0 | 28, bits]) + chunk)
    out = b""
    for at, payload in enumerate(payloads):
        marker = (at == len(payloads) - 1) << 7
        head = struct.pack(">BBHII", 0x80, 96 | marker, (sequence + at) & 0xFFFF, timestamp & 0xFFFFFFFF, source)
        out += struct.pack(">BBH", ord("$"), 0, len(head) + len(payload)) + head + payload
    return out, len(payloads)


class Camera:
    """One camera. Pictures are numbered over all its sessions."""

    def __init__(self, ident, clip, stop):
        self.ident, self.clip, self.stop = ident, clip, stop
        self.sent = []  # (session, number, when), when by the monotonic clock
        self.next, self.sessions, self.lock = 0, 0, threading.Lock()
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"rtsp://127.0.0.1:{self.listener.getsockname()[1]}/live"
        threading.Thread(target=self.listen, daemon=True).start()

    def listen(self):
        while True:
            connection, _ = self.listener.accept()
            threading.Thread(target=self.serve, args=(connection,), daemon=True).start()

    def serve(self, connection):
        try:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self.session(connection)
        except OSError:
            pass
        finally:
            connection.close()

    def session(self, connection):
        """Answers requests and, from PLAY on, sends pictures when they are due."""
        unread, due, session, sequence, first = b"", None, None, 0, 0
        while True:
            wait = 60 if due is None else max(0, due - time.monotonic())
            if select.select([connection], [], [], wait)[0]:
                received = connection.recv(65536)
                if not received:
                    return
                unread += received
                while True:
                    while unread[:1] == b"$" and len(unread) >= 4 and len(unread) >= 4 + int.from_bytes(unread[2:4], "big"):
                        unread = unread[4 + int.from_bytes(unread[2:4], "big") :]
                    head, end, rest = unread.partition(b"\r\n\r\n")
                    if unread[:1] == b"$" or not end:
                        break
                    unread = rest
                    method = head.split(b" ", 1)[0].decode()
                    connection.sendall(self.answer(method, head.decode()))
                    if method == "TEARDOWN":
                        return
                    if method == "PLAY" and due is None:
                        with self.lock:
                            session, self.sessions = self.sessions, self.sessions + 1
                        due = time.monotonic()
            if due is not None and time.monotonic() >= due and not self.stop.is_set():
                with self.lock:
                    # A session begins with a key picture: what is before it can't be recorded.
                    if first == 0 and not self.clip[self.next % len(self.clip)].key:
                        self.next += -self.next % KEY_EVERY
                    number, self.next = self.next, self.next + 1
                first += 1
                picture = self.clip[number % len(self.clip)]
                nals = picture.before + [sei(self.ident, session, number)] + picture.slices
                data, count = packets(nals, 1 + number * TICKS, sequence, 0xABCD0000 + self.ident)
                sequence += count
                connection.sendall(data)
                self.sent.append((session, number, time.monotonic()))
                due += 1 / FPS
            elif due is not None and self.stop.is_set():
                due = time.monotonic() + 0.2

    def answer(self, method, head):
        lines = dict(line.split(": ", 1) for line in head.split("\r\n")[1:] if ": " in line)
        lines = {name.lower(): value for name, value in lines.items()}
        extra, body = "", ""
        if method == "DESCRIBE":
            sets = ",".join(base64.b64encode(nal).decode() for nal in self.clip[0].before)
            body = (f"v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=numbers\r\nt=0 0\r\na=control:*\r\nm=video 0 RTP/AVP 96\r\n"
                    f"c=IN IP4 0.0.0.0\r\na=rtpmap:96 H264/90000\r\na=framerate:{FPS}\r\n"
                    f"a=fmtp:96 packetization-mode=1;sprop-parameter-sets={sets}\r\na=control:track1\r\n")
            extra = f"Content-Base: {self.url}/\r\nContent-Type: application/sdp\r\nContent-Length: {len(body)}\r\n"
        elif method == "OPTIONS":
            extra = "Public: OPTIONS, DESCRIBE, SETUP, PLAY, GET_PARAMETER, TEARDOWN\r\n"
        elif method == "SETUP":
            extra = "Transport: RTP/AVP/TCP;unicast;interleaved=0-1\r\nSession: 1;timeout=60\r\n"
        else:
            extra = "Session: 1\r\n"
        return f"RTSP/1.0 200 OK\r\nCSeq: {lines.get('cseq', '0')}\r\n{extra}\r\n{body}".encode()


def run(count, clip_path, pipe):
    """A process with `count` cameras: tells the URLs, and what was sent once it is told to stop."""
    os.nice(-5) if os.geteuid() == 0 else None  # late pictures of a starved camera would say nothing
    clip, stop = read_clip(clip_path), threading.Event()
    cameras = [Camera(ident, clip, stop) for ident in range(1, count + 1)]
    pipe.send([camera.url for camera in cameras])
    pipe.recv()
    stop.set()
    time.sleep(0.5)  # a picture on its way is counted
    pipe.send([list(camera.sent) for camera in cameras])
    pipe.recv()
