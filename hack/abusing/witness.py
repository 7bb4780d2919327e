"""Clients that were there before: each asks again and again on one connection, and must be answered."""
import http.client
import threading
import time

EVERY_S = 0.25
# Longer than any answer may take, so that a late one is seen to be late and not lost.
PATIENCE_S = 20


class Client(threading.Thread):
    """Asks for one path until told to end."""

    def __init__(self, port, path, end):
        super().__init__(daemon=True)
        self.port, self.path, self.end, self.asked = port, path, end, []

    def run(self):
        connection = None
        while not self.end.is_set():
            begin = time.monotonic()
            kept = connection is not None
            try:
                if connection is None:
                    connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE_S)
                connection.request("GET", self.path)
                answer = connection.getresponse()
                answer.read()
                result = str(answer.status)
                if answer.getheader("Connection", "").lower() == "close":
                    connection.close()
                    connection = None
            except (OSError, http.client.HTTPException) as error:
                result = type(error).__name__
                connection.close()
                connection = None
            self.asked.append((begin, time.monotonic() - begin, result, kept))
            self.end.wait(max(0.02, EVERY_S - (time.monotonic() - begin)))


def run(port, paths, pipe):
    """A process: tells what was asked, per path [(begin, seconds, status or error, kept)], once it is told to end."""
    end = threading.Event()
    clients = [Client(port, path, end) for path in paths]
    for client in clients:
        client.start()
    pipe.recv()
    end.set()
    for client in clients:
        client.join(PATIENCE_S + 5)
    pipe.send({client.path: client.asked for client in clients})
    pipe.recv()


def judge(asked, down, limit, must):
    """(answers, slowest, problems). What came while serve was down is set aside, and a refusal of a new
    connection: that is no client of before. `must`: nothing but 200 will do."""
    problems, slowest, answers = [], 0.0, 0
    for begin, seconds, result, kept in asked:
        if any(begin - 1 <= to and begin + seconds + 1 >= since for since, to in down):
            continue
        if not kept and (not result.isdecimal() or result == "503"):
            continue
        answers += 1
        slowest = max(slowest, seconds)
        if not result.isdecimal() or seconds > limit or must and result != "200":
            problems.append((begin, f"{result} after {seconds:.2f} s"))
    return answers, slowest, problems
