"""Plays everything at once and judges: see hack/abuse, which calls this."""
import argparse
import collections
import multiprocessing
import pathlib
import queue
import random
import shutil
import signal
import subprocess
import sys
import time

from . import camera, crowds, devices, peers, recordings, requests, witness  # noqa: F401 - the cases register themselves
from .cases import ALL, repeat
from .node import Memory, Node
from .surroundings import Damage, SmallDisk, Surroundings, descriptors, kills, newest, until

CAMERAS = 16
WATCHED = 4
SMALL_CAMERAS = 2
SMALL_DISK = "64m"
# Megabytes that a process of each role may take; docs/operations.md says where they come from.
BOUNDS_MB = {"serve": 512, "ingest": 512, "decode": 192, "scheduler": 64, "runner": 384, "media": 512}
ANSWER_S = 1
SURROUNDINGS = ["kills", "files that go", "descriptors", "a small disk"]
fork = multiprocessing.get_context("fork")


def arguments():
    parser = argparse.ArgumentParser(prog="hack/abuse")
    parser.add_argument("--list", action="store_true")
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--only", action="append", default=[])
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 32))
    parser.add_argument("--keep", type=pathlib.Path)
    parser.add_argument("--root", type=pathlib.Path)
    parser.add_argument("--work", type=pathlib.Path)
    parser.add_argument("--mounts", action="store_true")
    return parser.parse_args()


class Child:
    """A process of the harness and the pipe to it."""

    def __init__(self, function, *given):
        self.pipe, other = fork.Pipe()
        self.process = fork.Process(target=function, args=(*given, other), daemon=True)
        self.process.start()

    def ask(self, wait=60):
        """Tells it to end and takes what it has to say."""
        self.pipe.send(None)
        if not self.pipe.poll(wait):
            raise SystemExit(f"hack/abuse: a process of the harness says nothing within {wait} s")
        said = self.pipe.recv()
        self.pipe.send(None)
        return said


class Harness:
    def __init__(self, options):
        self.options, self.results, self.nodes = options, fork.Queue(), []
        self.rounds, self.begun = collections.defaultdict(list), {}
        self.notes, self.skipped, self.failed = [], [], False

    def wanted(self, name):
        return not self.options.only or any(word in name for word in self.options.only)

    def run(self):
        work, minutes = self.options.work, self.options.minutes
        print(f"seed {self.options.seed}, {minutes:g} minutes", flush=True)
        clip = work / "clip.h264"
        camera.make_clip(clip)
        # One more than is counted: the victim of what is done to its files.
        cameras = Child(camera.run, CAMERAS + 1 + SMALL_CAMERAS, clip)
        urls = cameras.pipe.recv()
        ids = [f"cam-{i:02}" for i in range(1, CAMERAS + 1)]
        row = lambda url: {"main_url": f'"{url}"', "record": "true"}  # noqa: E731
        rows = [(ident, row(url)) for ident, url in zip(ids + ["victim"], urls)]
        # The disk of the machine is what it is: nothing is to be removed for it.
        settings = {"recording": {"disk_high_percent": 99}}
        node = Node(work / "node", work / "node/state", work / "vas", self.options.root, settings, rows, ids[:WATCHED])
        self.nodes.append(node)
        small = self.small_node(urls[CAMERAS + 1 :])
        for each in self.nodes:
            each.begin()
        self.wait_for_recordings(node, ids)
        memory = Memory(self.nodes)
        memory.start()
        paths = ["/health", "/ai/observability/status", f"/api/v1/devices/{ids[0]}/frame.jpg", f"/api/v1/recordings/devices/{ids[1]}/playlist"]
        watching = Child(witness.run, node.http, paths)
        began = time.monotonic()
        # Rounds take up to half a minute; the last ones begin before that.
        end = began + 60 * minutes
        self.play(node, small, ids, end)
        asked = watching.ask()
        sent = cameras.ask()
        time.sleep(2)
        memory.end.set()
        for each in self.nodes:
            self.notes += [f"{each.folder.name}: {text}" for text in each.stop()]
        self.tell_cases(node)
        self.tell_witnesses(asked, node)
        self.tell_memory(memory)
        clip = camera.read_clip(clip)
        self.tell_recordings(node, ids, sent, clip)
        if small:
            self.tell_small(small, sent[CAMERAS + 1 :], clip)
        for note in self.notes:
            self.fail(note)
        self.verdict(time.monotonic() - began)

    def small_node(self, urls):
        if not self.wanted("a small disk"):
            return None
        if not self.options.mounts:
            self.skipped.append("a small disk: this user may make no mount namespace")
            return None
        disk = self.options.work / "small-disk"
        disk.mkdir()
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={SMALL_DISK}", "vas-abuse", disk], check=True)
        ids = [f"small-{i}" for i in range(1, SMALL_CAMERAS + 1)]
        rows = [(ident, {"main_url": f'"{url}"', "record": "true"}) for ident, url in zip(ids, urls)]
        node = Node(self.options.work / "small", disk / "state", self.options.work / "vas", self.options.root, {}, rows, [])
        self.nodes.append(node)
        return SmallDisk(node, ids)

    def wait_for_recordings(self, node, ids):
        folder = node.state / "recordings"
        if not until(90, lambda: all(newest(folder / ident) for ident in ids) and len(node.workers()) >= WATCHED):
            raise SystemExit(f"hack/abuse: not all cameras are recorded within 90 s; {node.last_words('ingest')}")

    def play(self, node, small, ids, end):
        facts = {"http": node.http, "udp": node.udp, "cameras": ids, "folder": str(node.folder)}
        seed = self.options.seed
        processes = [fork.Process(target=repeat, args=(one.name, facts, seed, end, self.results), daemon=True) for one in ALL if self.wanted(one.name)]
        for process in processes:
            process.start()
        self.damage = Damage(node)
        plays = {"kills": ((15, 25), kills(node, self.damage), facts), "files that go": ((20, 40), self.damage.play, facts),
                 "descriptors": ((60, 90), descriptors(node), facts)}
        if small:
            plays["a small disk"] = ((20, 40), small.play, facts | {"http": small.node.http})
        threads = []
        for name, (pause, play, its) in plays.items():
            if self.wanted(name):
                threads.append(Surroundings(name, its, random.Random(f"{seed} {name}"), pause, end, self.results, play))
        for thread in threads:
            thread.start()
        told = time.monotonic()
        while time.monotonic() < end or any(p.is_alive() for p in processes) or any(t.is_alive() for t in threads):
            self.drain()
            if time.monotonic() > end + 150:
                self.notes.append(f"not at an end after 150 s: {', '.join(self.begun)}")
                break
            if time.monotonic() - told > 60:
                told = time.monotonic()
                wrong = sum(len(r[3]) for rounds in self.rounds.values() for r in rounds)
                print(f"{max(0, end - told) / 60:.0f} minutes left, {sum(map(len, self.rounds.values()))} rounds, {wrong} complaints", flush=True)
        self.drain()
        for process in processes:
            process.terminate()

    def drain(self):
        while True:
            try:
                name, begin, end, counts, wrongs = self.results.get(timeout=0.3)
            except queue.Empty:
                return
            if end is None:
                self.begun[name] = begin
            else:
                self.begun.pop(name, None)
                self.rounds[name].append((begin, end, counts, wrongs))

    def fail(self, text):
        self.failed = True
        print(f"FAIL  {text}")

    def tell_cases(self, node):
        """A table: what each case was answered. What fell into a kill of serve, or while the registry was
        damaged, is no complaint."""
        print(f"\n{'case':<30} {'rounds':>6} {'wrong':>6}  answers")
        for name in [one.name for one in ALL] + SURROUNDINGS:
            if not self.wanted(name):
                continue
            rounds, counts, wrongs = self.rounds[name], collections.Counter(), collections.Counter()
            excused = list(node.down) if name != "a small disk" else []
            if name not in SURROUNDINGS:
                excused += self.damage.done
            for begin, end, count, wrong in rounds:
                counts += count
                if not any(begin <= to + 1 and end >= since - 1 for since, to in excused) or name in SURROUNDINGS:
                    wrongs.update(wrong)
            answers = ", ".join(f"{what} x {n}" for what, n in counts.most_common(9))
            print(f"{name:<30} {len(rounds):>6} {sum(wrongs.values()):>6}  {answers}")
            for text, n in wrongs.most_common(4):
                self.fail(f"{name}: {text}" + (f" ({n} times)" if n > 1 else ""))
            if not rounds:
                self.skipped.append(f"{name}: no round ended in this time")

    def tell_witnesses(self, asked, node):
        print(f"\n{'client of before':<58} {'asked':>6} {'slowest':>8}  answers")
        for path, answers in asked.items():
            results = collections.Counter(result for _, _, result, _ in answers)
            must = path in ("/health", "/ai/observability/status")
            count, slowest, problems = witness.judge(answers, node.down, ANSWER_S, must)
            print(f"{path:<58} {count:>6} {slowest:>6.2f} s  {', '.join(f'{w} x {n}' for w, n in results.most_common(6))}")
            for begin, text in problems[:3]:
                self.fail(f"{path}: {text}, while {self.playing(begin)}")
            if len(problems) > 3:
                self.fail(f"{path}: {len(problems)} answers like that")

    def playing(self, at):
        """The cases that were at work then."""
        ended = [name for name, rounds in self.rounds.items() if any(begin <= at <= end for begin, end, _, _ in rounds)]
        return ", ".join(ended + [name for name, begin in self.begun.items() if begin <= at]) or "nothing was played"

    def tell_memory(self, memory):
        print(f"\n{'process':<12} {'seen':>5} {'peak':>8} {'bound':>8} {'at the end':>11}")
        for role, peak in sorted(memory.peaks.items()):
            bound = BOUNDS_MB.get(role)
            print(f"{role:<12} {len(memory.seen[role]):>5} {peak:>5} MB {bound or '-':>5} MB {memory.last[role]:>8} MB")
            if bound and peak > bound:
                self.fail(f"{role} took {peak} MB, its bound is {bound} MB")

    def tell_recordings(self, node, ids, sent, clip):
        print(f"\n{'camera':<10} {'sent':>7} {'missing':>8} {'twice':>6} {'altered':>8} {'sessions':>9}")
        total = 0
        for ident, (name, its) in enumerate(zip(ids, sent), 1):
            held = recordings.Compared(node.state / "recordings", name, ident, its, clip)
            total += held.sent
            if not held.whole or held.sessions != 1:
                print(f"{name:<10} {held.sent:>7} {len(held.missing):>8} {held.twice:>6} {held.altered:>8} {held.sessions:>9}")
                holes = ", ".join(f"{first} to {last}" for first, last in held.holes()[:4])
                if held.missing:
                    first = held.when[held.missing[0]]
                    self.fail(f"{name}: {len(held.missing)} pictures are not recorded ({holes}), the first while {self.playing(first)}")
                if not held.sound:
                    self.fail(f"{name}: {held.twice} twice, {held.altered} altered, {held.order} out of order, {held.unnumbered} without a number, {held.foreign} never sent")
        print(f"{len(ids)} cameras sent {total} pictures")

    def tell_small(self, small, sent, clip):
        """On the small disk the oldest may be removed, and nothing else but what came while it was full."""
        for at, (name, its) in enumerate(zip(small.cameras, sent)):
            held = recordings.Compared(small.node.state / "recordings", name, CAMERAS + 2 + at, its, clip)
            holes, removed, full = held.holes(), 0, 0
            for first, last in holes:
                count = sum(first <= number <= last for number in held.missing)
                if first == min(held.when):
                    removed += count
                elif any(since - 1 <= held.when[first] and held.when[last] <= to for since, to in small.full):
                    full += count
                else:
                    self.fail(f"{name}: pictures {first} to {last} are not recorded, and the disk had room")
            print(f"{name}: {held.sent} sent, {removed} of the oldest removed, {full} lost while the disk was full")
            if not held.sound:
                self.fail(f"{name}: {held.twice} twice, {held.altered} altered, {held.order} out of order, {held.unnumbered} without a number, {held.foreign} never sent")

    def verdict(self, seconds):
        for text in self.skipped:
            print(f"not played: {text}")
        if self.nodes[0].checks:
            print(f"`vas check` was asked for and run {self.nodes[0].checks} times")
        what = "FAILED" if self.failed else "passed"
        partly = " (not all was played)" if self.skipped or self.options.only else ""
        print(f"\n{what}{partly}: {len(ALL) + len(SURROUNDINGS)} cases, {sum(map(len, self.rounds.values()))} rounds in {seconds / 60:.1f} minutes, seed {self.options.seed}")

    def clear(self):
        for node in self.nodes:
            node.stop()
            if self.options.keep:
                self.options.keep.mkdir(parents=True, exist_ok=True)
                for file in [*node.folder.glob("*.log"), node.config]:
                    shutil.copy(file, self.options.keep / f"{node.folder.name}-{file.name}")
        subprocess.run(["umount", "-l", self.options.work / "small-disk"], stderr=subprocess.DEVNULL, check=False)


def main():
    options = arguments()
    if options.list:
        print("\n".join([one.name for one in ALL] + SURROUNDINGS))
        return 0
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    harness = Harness(options)
    try:
        harness.run()
    finally:
        harness.clear()
    return 1 if harness.failed else 0


if __name__ == "__main__":
    sys.exit(main())
