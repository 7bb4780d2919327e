"""What an operator, a kernel or a disk does to a node: kills, stops, files that go, a disk that is full.

Each is a thread of the harness, which holds the processes. Rounds are told as those of the cases are.
"""
import http.client
import json
import os
import pathlib
import shutil
import signal
import threading
import time

from . import wire
from .cases import Round

# Until something must have been noticed or be as before (chosen: sweeps and looks are every 10 s).
NOTICED_S = 25
# A full disk is held for so long: two sweeps.
FULL_S = 22
# Recording is tried again every 3 s, a sweep comes every 10 s.
RECORDS_AGAIN_S = 15


class Surroundings(threading.Thread):
    """Plays `play(one)` in turns until the end."""

    def __init__(self, name, facts, chance, pause, until, queue, play):
        super().__init__(daemon=True)
        self.facts, self.chance, self.pause, self.until, self.queue, self.play = facts, chance, pause, until, queue, play
        self.name = name

    def run(self):
        while True:
            wait = self.chance.uniform(*self.pause)
            if time.monotonic() + wait >= self.until:
                return
            time.sleep(wait)
            one = Round(self.facts, self.chance)
            begin = time.monotonic()
            self.queue.put((self.name, begin, None, None, None))
            try:
                self.play(one)
            except wire.Wrong as wrong:
                one.wrong(str(wrong))
            except (OSError, ValueError, http.client.HTTPException) as error:
                one.wrong(f"the harness: {type(error).__name__}: {error}")
            self.queue.put((self.name, begin, time.monotonic(), one.counts, one.wrongs))


def until(seconds, true):
    """Whether it became true in time."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            if true():
                return True
        except (OSError, ValueError, http.client.HTTPException):
            pass
        time.sleep(0.2)
    return False


def healthy(port):
    return json.loads(wire.ask(port, "GET", "/health/detailed", timeout=10).body)["status"] == "healthy"


# --- kills ---------------------------------------------------------------------------------------------------------


def kills(node, damage):
    """serve, a decode worker, the runner and the scheduler in turns."""

    def serve(one):
        made, before = [], len(damage.done)
        for i in range(3):
            device = {"name": f"kept {i}", "rtsp_url": f"rtsp://127.0.0.1:9/kept{one.chance.randrange(1 << 40)}"}
            answer = one.ask("POST", "/api/v1/devices", device, (201,))
            if answer and answer.status == 201:
                made.append(wire.json_of(answer)["id"])
        node.kill_serve()
        one.count("kill")
        for ident in made:
            answer = one.ask("GET", f"/api/v1/devices/{ident}", None, (200, 404))
            if answer and answer.status == 404 and len(damage.done) == before and not damage.now:
                one.wrong("a camera that was acknowledged before kill -9 is gone")
            one.ask("DELETE", f"/api/v1/devices/{ident}", None, (204, 404))

    def worker(one):
        workers = node.workers()
        if workers:
            pid = one.chance.choice(workers)
            os.kill(pid, signal.SIGKILL)
            one.count("kill")
            if not until(NOTICED_S, lambda: len(set(node.workers()) - {pid}) >= len(workers)):
                one.wrong(f"no decode worker came back within {NOTICED_S} s")

    def runner(one):
        node.kill("runner")
        node.start("runner")
        one.count("kill")

    def scheduler(one):
        if one.chance.random() < 0.5:
            node.parts["scheduler"].send_signal(signal.SIGSTOP)
            time.sleep(5)
            node.parts["scheduler"].send_signal(signal.SIGCONT)
            one.count("stop")
        else:
            node.kill("scheduler")
            node.start("scheduler")
            one.count("kill")

    turns = iter([])

    def play(one):
        nonlocal turns
        turn = next(turns, None)
        if turn is None:
            turns = iter([serve, worker, runner, scheduler])
            turn = next(turns)
        turn(one)
        time.sleep(2)
        for name, part in node.parts.items():
            if part.poll() is not None:
                one.wrong(f"{name} ended: {node.last_words(name)}")
                node.start(name)

    return play


# --- state that is deleted or replaced ------------------------------------------------------------------------------


class Damage:
    """Deletes and garbles files of the state while serve runs. What matters must be noticed or written again."""

    def __init__(self, node):
        # From when to when rows may be missing: what was made since the last start was lost with its file.
        self.done, self.now, self.node = [], False, node

    def play(self, one):
        turn = one.chance.choice([self.desired, self.registry, self.events, self.media, self.recordings, self.recordings])
        begin = time.monotonic()
        self.now = turn in (self.desired, self.registry, self.events)
        try:
            turn(one)
        finally:
            if self.now:
                self.done.append((begin, time.monotonic()))
            self.now = False

    def harm(self, one, path, kinds=("deleted", "garbage", "empty", "directory")):
        """Deletes or replaces a file."""
        kind = one.chance.choice(kinds)
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        path.unlink(missing_ok=True)
        if kind == "garbage":
            path.write_bytes(one.chance.randbytes(8192))
        elif kind == "empty":
            path.touch()
        elif kind == "directory":
            path.mkdir()
        one.count(f"{path.name.split('.')[0] if not path.name[:8].isdecimal() else 'day'} {kind}")
        return kind

    def desired(self, one):
        path = self.node.state / "desired.json"
        kind = self.harm(one, path)
        if not until(NOTICED_S, lambda: path.is_file() and json.loads(path.read_bytes())):
            noticed = not healthy(self.node.http)
            one.wrong(f"desired.json ({kind}) is not written again within {NOTICED_S} s; health {'says so' if noticed else 'is healthy'}")
            if path.is_dir():
                path.rmdir()
            self.node.kill_serve()

    def store(self, one, path):
        """A store whose file is gone says so, or has a file again."""
        kind = self.harm(one, path, ("deleted", "garbage", "empty"))
        good = lambda: path.is_file() and path.read_bytes()[:4] == b"redb"  # noqa: E731
        if not until(NOTICED_S, lambda: good() or not healthy(self.node.http)):
            one.wrong(f"{path.name} ({kind}) is not noticed within {NOTICED_S} s: health is healthy")
        # Rows that were lost with the file come from vas.toml at the next start.
        self.node.kill_serve()

    def registry(self, one):
        self.store(one, self.node.state / "control.redb")

    def events(self, one):
        days = sorted((self.node.state / "events").glob("*.redb"))
        if days:
            self.store(one, days[-1])

    def media(self, one):
        shutil.rmtree(self.node.state / "media", ignore_errors=True)
        one.count("media deleted")
        camera = one.cameras[0]
        made = until(NOTICED_S, lambda: wire.ask(self.node.http, "POST", f"/api/v1/snapshots/devices/{camera}/capture/live", timeout=30).status == 200)
        if not made:
            one.wrong(f"no snapshot was possible within {NOTICED_S} s after media/ was deleted")

    def recordings(self, one):
        """Of a camera that is recorded and not counted."""
        folder = self.node.state / "recordings" / "victim"
        days = sorted(day for day in folder.glob("*") if day.is_dir())
        if not days:
            return
        kind = one.chance.choice(["index", "cut", "segment", "day", "camera", "link"])
        if kind == "index":
            self.harm(one, days[-1] / "index", ("deleted", "garbage", "empty"))
        elif kind == "cut":
            os.truncate(days[-1] / "index", 100)
        elif kind == "segment":
            for segment in sorted(days[-1].glob("*.mp4"))[:-1][-3:]:
                segment.write_bytes(one.chance.randbytes(1000))
        elif kind == "day":
            shutil.rmtree(days[-1], ignore_errors=True)
        elif kind == "camera":
            shutil.rmtree(folder, ignore_errors=True)
        else:
            elsewhere = self.node.folder / "elsewhere"
            elsewhere.mkdir(exist_ok=True)
            link = days[-1] / "link"
            link.unlink(missing_ok=True)
            link.symlink_to(elsewhere)
        one.count(f"recordings: {kind}")
        since = time.time()
        if not until(NOTICED_S, lambda: newest(folder) > since):
            one.wrong(f"recording did not go on within {NOTICED_S} s after its files were harmed ({kind})")


def newest(folder):
    """When a segment below the folder was last written."""
    return max((file.stat().st_mtime for file in pathlib.Path(folder).glob("*/*.mp4")), default=0)


# --- descriptors ----------------------------------------------------------------------------------------------------


def descriptors(node):
    """serve may open nothing more for a while, and others want to be let in."""

    def play(one):
        try:
            node.limit_files("serve", 10)
        except OSError:
            one.count("too late")
            return
        peers = []
        try:
            for _ in range(60):
                try:
                    peers.append(wire.connect(node.http, timeout=2))
                except OSError:
                    one.count("closed")
            time.sleep(5)
            one.count("exhausted")
        finally:
            for peer in peers:
                peer.close()
            try:
                node.limit_files("serve", None)
            except OSError:
                one.count("too late")
        if not until(10, lambda: wire.ask(node.http, "GET", "/health", timeout=5).status == 200):
            one.wrong("serve lets nobody in within 10 s after it got its descriptors back")

    return play


# --- a small disk ---------------------------------------------------------------------------------------------------


class SmallDisk:
    """A second node, whose disk others fill and free again; sometimes it starts while it is full."""

    def __init__(self, node, cameras):
        # From when to when nothing could be written, and so much longer as it may take to go on.
        self.node, self.cameras, self.full, self.turn = node, cameras, [], 0

    def ballast(self):
        """Fills the disk to the last byte."""
        with open(self.node.state.parent / "ballast", "ab", buffering=0) as file:
            for piece in (1 << 20, 1 << 12):
                try:
                    while file.write(b"\xff" * piece):
                        pass
                except OSError:
                    pass

    def play(self, one):
        self.turn += 1
        if self.turn % 3 == 2:
            self.clips(one)
        begin = time.monotonic()
        try:
            self.ballast()
            one.count("filled")
            if self.turn % 3 == 0:
                self.restart(one)
            self.hold(one)
        finally:
            (self.node.state.parent / "ballast").unlink()
            self.full.append((begin, time.monotonic() + RECORDS_AGAIN_S))
        since = time.time()
        for camera in self.cameras:
            folder = self.node.state / "recordings" / camera
            if not until(RECORDS_AGAIN_S, lambda folder=folder: newest(folder) > since):
                one.wrong(f"{camera} is not recorded within {RECORDS_AGAIN_S} s after the disk was freed")

    def hold(self, one):
        """Takes what is freed, as others do, and asks meanwhile."""
        end = time.monotonic() + FULL_S
        while time.monotonic() < end:
            time.sleep(1)
            self.ballast()
            answer = one.ask("GET", "/health", None, (200,), timeout=5)
            if answer and answer.seconds > 1:
                one.wrong(f"/health took {answer.seconds:.1f} s on a full disk")

    def clips(self, one):
        """More clips than the disk has room for; recordings must not pay for them."""
        media, recordings = self.node.state / "media", self.node.state / "recordings"
        before = sum(1 for _ in recordings.glob("*/*/*.mp4"))
        for _ in range(60):
            one.ask("POST", f"/api/v1/bookmarks/devices/{self.cameras[0]}/capture/live", {"duration": 30}, (202, 404, 409, 507))
            time.sleep(0.25)
        after = sum(1 for _ in recordings.glob("*/*/*.mp4"))
        taken = sum(file.stat().st_size for file in media.glob("**/*") if file.is_file())
        one.count("clips")
        disk = os.statvfs(self.node.state)
        if taken > 0.15 * disk.f_blocks * disk.f_frsize:
            one.wrong(f"clips took {taken >> 20} MiB of {disk.f_blocks * disk.f_frsize >> 20} MiB")
        if after < before // 2:
            one.wrong(f"of {before} segments {after} were left after sixty clips")

    def restart(self, one):
        """ingest and serve start while nothing can be written."""
        for name in ("ingest", "serve"):
            part = self.node.parts[name]
            part.terminate()
            try:
                part.wait(10)
            except Exception:  # noqa: BLE001 - whatever keeps it, it is ended
                part.kill()
                part.wait()
                one.wrong(f"{name} did not stop within 10 s on a full disk")
            self.node.start(name)
        one.count("started full")
        self.node.wait_for_serve()
