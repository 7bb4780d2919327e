"""Many at once: connections, readers that do not read, answers that cost, pictures and clips."""
import datetime
import time

from . import wire
from .cases import case


def ago(**delta):
    moment = datetime.datetime.now(datetime.timezone.utc) - datetime.timedelta(**delta)
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


@case("idle connections", (60, 90))
def idle(one):
    """More than there are places: some are turned away, all others are closed in time."""
    peers, begin = [], time.monotonic()
    for _ in range(300):
        try:
            peers.append(wire.connect(one.http))
        except OSError:
            one.count("closed")
    for peer in peers:
        peer.settimeout(max(0.1, 20 - (time.monotonic() - begin)))
        try:
            one.count(wire.status(peer.recv(4096)) or "closed")
        except TimeoutError:
            one.wrong("an idle connection is held for more than 20 s")
        except OSError:
            one.count("closed")
        peer.close()


@case("readers that do not read", (30, 60))
def unread(one):
    """They are dropped when no byte was taken for 10 s."""
    peers = []
    for path in ["/openapi.json", "/api/v1/ai-events?limit=1000", f"/api/v1/recordings/devices/{one.cameras[0]}/playlist"] * 20:
        try:
            peer = wire.connect(one.http)
            # Again and again, so that the answers are more than the kernel takes.
            peer.setblocking(False)
            peer.send(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode() * 60)
            peers.append(peer)
        except OSError:
            one.count("closed")
    time.sleep(25)
    for peer in peers:
        peer.settimeout(5)
        try:
            received = sum(iter(lambda peer=peer: len(peer.recv(1 << 20)), 0))
            one.count("closed" if received else "empty")
        except TimeoutError:
            one.count("kept")
        except OSError:
            one.count("closed")
        peer.close()


@case("answers that cost", (5, 15))
def heavy(one):
    camera = one.chance.choice(one.cameras)
    recordings = f"/api/v1/recordings/devices/{camera}"
    today = datetime.datetime.now(datetime.timezone.utc).strftime("%Y%m%d")
    paths = [f"{recordings}/timeline?start={ago(days=7)}&end={ago()}", f"{recordings}/playlist?date={today}",
             f"{recordings}/playlist?start={ago(hours=23)}&end={ago()}", "/api/v1/ai-events?limit=1000",
             f"/api/v1/ai-events?start_time={ago(days=30)}&limit=1000", "/ai/observability/status", "/openapi.json"]
    for path in one.chance.sample(paths, 3):
        one.together(64, lambda _, path=path: one.ask("GET", path, None, (200, 404), timeout=60))


@case("pictures", (5, 10))
def pictures(one):
    one.together(64, lambda i: one.ask("GET", f"/api/v1/devices/{one.cameras[i % 4]}/frame.jpg", None, (200, 404)))


@case("snapshots", (10, 20))
def snapshots(one):
    """By serve, by ingest and from recordings, most of them deleted again."""
    made = []

    def take(i):
        camera = one.chance.choice(one.cameras)
        if i % 2:
            path, body = "live", None
        else:
            path, body = "historical", {"timestamp": ago(seconds=i)}
        allowed = (200, 404, 409, 500, 507)
        answer = one.ask("POST", f"/api/v1/snapshots/devices/{camera}/capture/{path}", body, allowed, timeout=60)
        if answer and answer.status == 200:
            made.append(wire.json_of(answer)["snapshot"]["id"])

    one.together(30, take)
    for ident in made:
        one.ask("GET", f"/api/v1/snapshots/{ident}/image", None, (200, 404, 410))
        one.ask("DELETE", f"/api/v1/snapshots/{ident}", None, (204, 404))


@case("clips", (30, 60))
def clips(one):
    """Sixty in fifteen seconds; some are deleted while they wait, and later half of the rest."""
    made = []
    for i in range(60):
        camera = one.chance.choice(one.cameras)
        if i % 3:
            path, body = "live", {"duration": one.chance.choice((1, 5, 30))}
        else:
            path, body = "historical", {"start_timestamp": ago(seconds=40), "end_timestamp": ago(seconds=10)}
        answer = one.ask("POST", f"/api/v1/bookmarks/devices/{camera}/capture/{path}", body, (202, 404, 409, 422, 507))
        if answer and answer.status == 202:
            made.append(wire.json_of(answer)["bookmark"]["id"])
            if i % 5 == 0:
                one.ask("DELETE", f"/api/v1/bookmarks/{made.pop()}", None, (204, 404))
        time.sleep(0.2)
    for ident in made[::2]:
        one.ask("GET", f"/api/v1/bookmarks/{ident}/video", None, (200, 404, 409, 410))
        one.ask("DELETE", f"/api/v1/bookmarks/{ident}", None, (204, 404))
