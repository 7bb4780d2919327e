"""What a case of abuse is: a function that plays one round, again and again, with pauses.

A case counts what it was answered and says what must not be. It runs in a process of its own, below the
node in priority: a client on another machine would take no processor from it.
"""
import collections
import concurrent.futures
import os
import random
import re
import time

from . import wire

# Everything that costs may be refused for a while when too many ask (docs/http.md, "What a client can hold").
BUSY = 503

Case = collections.namedtuple("Case", "name play pause")
ALL = []


def case(name, pause):
    """Registers a case. `pause`: least and most seconds between two rounds."""

    def register(play):
        ALL.append(Case(name, play, pause))
        return play

    return register


class Round:
    """One round of a case: the node as clients know it, and what came of it."""

    def __init__(self, facts, chance):
        self.__dict__.update(facts)  # http, udp, cameras, folder
        self.chance = chance
        self.counts, self.wrongs = collections.Counter(), []

    def count(self, what):
        self.counts[str(what)] += 1

    def wrong(self, text):
        self.wrongs.append(text)

    def ask(self, method, path, body=None, allowed=(200,), headers=None, timeout=30):
        """A request whose status must be one of `allowed`, or that is refused because many others ask."""
        try:
            answer = wire.ask(self.http, method, path, body, headers, timeout)
        except TimeoutError:
            self.wrong(f"{method} {plain(path)}: no answer within {timeout} s")
            return None
        except OSError:
            # Beyond 256 connections it is 503 and close, which may come before all was sent.
            self.count("closed")
            return None
        self.count(answer.status)
        if answer.status not in allowed and answer.status != BUSY:
            self.wrong(f"{method} {plain(path)}: {answer.status}{said(answer.status, answer.body)}")
        return answer

    def raw(self, data, allowed, what, timeout=20):
        """Bytes whose answer must have one of these statuses, 0 = closed without one."""
        try:
            answer = wire.raw(self.http, data, timeout)
        except OSError:
            self.count("closed")
            return b""
        status = wire.status(answer)
        self.count(status or "closed")
        if status not in allowed and status not in (0, BUSY):
            self.wrong(f"{what}: {status}{said(status, answer)}")
        return answer

    def together(self, count, play):
        """So many at once; `play` gets the number of each."""
        with concurrent.futures.ThreadPoolExecutor(count) as pool:
            return list(pool.map(play, range(count)))


def plain(path):
    """The path without what is another one each time, so that complaints are counted together."""
    return re.sub(r"[0-9a-f]{8}-[0-9a-f-]{27}", "ID", path.partition("?")[0])[:80]


def said(status, body):
    """The message of a refusal."""
    message = re.search(rb'"message":"([^"]*)', body)
    return f", {message[1][:100].decode(errors='replace')}" if status >= 400 and message else ""


def repeat(name, facts, seed, until, queue):
    """Plays a case until the end."""
    os.nice(10)
    play, pause = next((c.play, c.pause) for c in ALL if c.name == name)
    chance = random.Random(f"{seed} {name}")
    time.sleep(chance.uniform(0, min(pause[1], 5)))
    while time.monotonic() < until:
        one = Round(facts, chance)
        begin = time.monotonic()
        queue.put((name, begin, None, None, None))
        try:
            play(one)
        except wire.Wrong as wrong:
            one.wrong(str(wrong))
        except OSError:
            one.count("closed")
        queue.put((name, begin, time.monotonic(), one.counts, one.wrongs))
        time.sleep(min(chance.uniform(*pause), max(0, until - time.monotonic())))
