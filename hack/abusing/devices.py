"""Cameras that come and go, with addresses and names that nobody should give."""
import socket
import threading

from . import wire
from .cases import case


def delete(one, ident):
    one.ask("POST", f"/api/v1/devices/{ident}/stop-stream", None, (200, 404, 409))
    one.ask("DELETE", f"/api/v1/devices/{ident}", None, (204, 400, 404, 409))


def create(one, device, allowed=(201,)):
    answer = one.ask("POST", "/api/v1/devices", device, allowed)
    return wire.json_of(answer)["id"] if answer and answer.status == 201 else None


@case("cameras made and deleted", (5, 10))
def churn(one):
    """Twenty at once: made, started, stopped, deleted."""

    def live(i):
        number = one.chance.randrange(1 << 40)
        ident = create(one, {"name": f"churn {i}", "rtsp_url": f"rtsp://127.0.0.1:9/{number}", "record": True, "enabled": i % 2 == 0})
        if ident:
            one.ask("POST", f"/api/v1/devices/{ident}/start-stream", None, (200, 404, 409))
            one.ask("PUT", f"/api/v1/devices/{ident}", {"name": f"churned {i}"}, (200, 404))
            delete(one, ident)

    one.together(20, live)
    address = f"rtsp://127.0.0.1:9/same{one.chance.randrange(1 << 40)}"
    made = one.together(20, lambda i: create(one, {"name": f"same {i}", "rtsp_url": address}, (201, 400)))
    if sum(ident is not None for ident in made) > 1:
        one.wrong("two cameras have one address")
    for ident in filter(None, made):
        delete(one, ident)


ADDRESSES = ["file:///etc/passwd", "file:///etc", "file:///dev/zero", "file:///dev/stdin", "file:///proc/kmsg", "file:///proc/self/environ",
             "/etc/shadow", "file:///tmp/list.m3u8", "rtsp://127.0.0.1:1/", "rtsp://127.0.0.1:0/", "rtsp://[::1]:9/", "rtsp://[::ffff:127.0.0.1]:9/",
             "http://127.0.0.1:9/", "rtsps://127.0.0.1:9/", "concat:/etc/passwd|/etc/group", "rtsp://127.0.0.1:99999/", "rtsp://a:b@c:d@127.0.0.1:9/",
             "rtsp://u%0d%0aX:p@127.0.0.1:9/", "rtsp://127.0.0.1:9/%0d%0aX: y", "rtsp://user:hunter2@127.0.0.1:9/", "rtsp://127.0.0.1:9/#x", "rtsp://***@127.0.0.1:9/"]


@case("addresses of cameras", (5, 10))
def addresses(one):
    for address in ADDRESSES:
        answer = one.ask("POST", "/api/v1/devices/validate", {"name": "v", "rtsp_url": address}, (200, 400, 422), timeout=60)
        if answer and (b"root:" in answer.body or b"hunter2" in answer.body):
            one.wrong(f"{address}: the answer tells what it must not: {answer.body[:80]!r}")
        ident = create(one, {"name": "a", "rtsp_url": address, "enabled": True, "record": True}, (201, 400, 422))
        if ident:
            answer = one.ask("GET", f"/api/v1/devices/{ident}/status", None, (200, 404))
            if answer and b"hunter2" in answer.body:
                one.wrong("a state tells a password")
            delete(one, ident)


# Name, and whether it must be refused.
NAMES = [("   ", True), ("a\0b", True), ("a\r\nb", True), ("\u202eevil\u202c", True), ("n" * 256, True),
         ("<script>alert(1)</script>", False), ("{{7*7}}", False), ("\N{SNOWMAN}" * 255, False)]


@case("names of cameras", (5, 10))
def names(one):
    for name, refuse in NAMES:
        device = {"name": name, "rtsp_url": f"rtsp://127.0.0.1:9/n{one.chance.randrange(1 << 40)}"}
        ident = create(one, device, (422,) if refuse else (201,))
        if ident:
            delete(one, ident)


@case("cameras that say nothing", (15, 30))
def mute(one):
    """A server that takes connections and never answers: tried, started, snapped."""
    with socket.create_server(("127.0.0.1", 0), backlog=64) as server:
        held = []

        def take():
            try:
                while True:
                    held.append(server.accept()[0])
            except OSError:
                pass

        threading.Thread(target=take, daemon=True).start()
        address = f"rtsp://127.0.0.1:{server.getsockname()[1]}"
        ident = create(one, {"name": "mute", "rtsp_url": f"{address}/m", "enabled": True})
        one.together(12, lambda i: one.ask("POST", "/api/v1/devices/validate", {"name": "v", "rtsp_url": f"{address}/{i}"}, (200,), timeout=60))
        if ident:
            one.together(6, lambda i: one.ask("POST", f"/api/v1/snapshots/devices/{ident}/capture/live", None, (404, 409, 500), timeout=60))
            delete(one, ident)
        for peer in held:
            peer.close()
        server.shutdown(socket.SHUT_RDWR)
