"""A node of one's own: its parts as an operator would start them, and what memory they take.

`vas up` restarts nothing, so the parts are started one by one, and again when they were killed.
"""
import collections
import os
import pathlib
import resource
import signal
import subprocess
import threading
import time

from . import wire

# The parts in the order in which they are stopped.
PARTS = ("scheduler", "runner", "ingest", "serve")
# And what they start.
ROLES = (*PARTS, "decode", "media")
STOP_S = 10
ANSWER_S = 30


class Node:
    """The parts of one node, with files below `folder` and state at `state`."""

    def __init__(self, folder, state, binary, root, settings, cameras, models):
        """`cameras`: (id, {key: value in TOML}); `models`: ids of cameras that a model watches."""
        self.folder, self.state, self.root = pathlib.Path(folder), pathlib.Path(state), root
        self.folder.mkdir(parents=True, exist_ok=True)
        self.state.mkdir(parents=True, exist_ok=True)
        self.shm = pathlib.Path("/dev/shm") / self.folder.parent.name / self.folder.name
        self.shm.mkdir(parents=True)
        # A copy of its own, so that its processes are known by their program.
        self.program = self.folder / "vas"
        os.link(binary, self.program)
        self.http, self.udp = wire.free_port(), wire.free_port()
        self.config = self.folder / "vas.toml"
        self.parts, self.down, self.lock = {}, [], threading.RLock()
        # How often `vas check` was run because a part asked for it.
        self.checks = 0
        model = root / "models/nanodet_g_416"
        text = (f'[http]\nbind = "127.0.0.1:{self.http}"\n[webrtc]\nudp_port = {self.udp}\n'
                f'[dirs]\nshm = "{self.shm}"\nruntime = "{self.folder}/run"\nstate = "{self.state}"\n'
                f"[frame_export]\nenabled = {'true' if models else 'false'}\n")
        for table, keys in settings.items():
            text += f"[{table}]\n" + "".join(f"{key} = {value}\n" for key, value in keys.items())
        for ident, keys in cameras:
            text += f'[[camera]]\nid = "{ident}"\n' + "".join(f"{key} = {value}\n" for key, value in keys.items())
        if models:
            text += f'[[model]]\ndir = "{model}"\n'
        for ident in models:
            text += f'[[assignment]]\ncamera = "{ident}"\nmodel = "nanodet_g_416"\ndesired_fps = 1\n'
        self.config.write_text(text)
        self.commands = {name: [name] for name in PARTS}
        self.commands["runner"] = ["runner", str(model), "--device", "cpu"]
        if not models:
            del self.commands["runner"], self.commands["scheduler"]

    def begin(self):
        for name in reversed(PARTS):
            if name in self.commands:
                self.start(name)
        self.wait_for_serve()

    def start(self, name):
        before = self.parts.get(name)
        if before and before.poll() is not None and "run `vas check`" in self.last_words(name):
            # Killed while its file was garbage: an operator does what it says.
            subprocess.run([self.program, "check", "--config", self.config], capture_output=True, timeout=60)
            self.checks += 1
        with self.lock:
            log = open(self.folder / f"{name}.log", "ab")
            command = [self.program, *self.commands[name], "--config", self.config]
            self.parts[name] = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)

    def wait_for_serve(self):
        """Until it answers. Raises when it ended, or does not."""
        deadline, again = time.monotonic() + ANSWER_S, False
        while time.monotonic() < deadline:
            if self.parts["serve"].poll() is not None:
                if not again and "run `vas check`" in self.last_words("serve"):
                    self.start("serve")
                    again = True
                    continue
                raise wire.Wrong(f"serve ended by itself: {self.last_words('serve')}")
            try:
                if wire.ask(self.http, "GET", "/health", timeout=2).status == 200:
                    return
            except OSError:
                pass
            time.sleep(0.05)
        raise wire.Wrong(f"serve does not answer within {ANSWER_S} s")

    def kill(self, name):
        with self.lock:
            part = self.parts[name]
            part.kill()
            part.wait()

    def kill_serve(self):
        """kill -9 and a start, as an operator's supervisor would. Nobody is answered meanwhile, which is
        remembered."""
        begin = time.monotonic()
        try:
            self.kill("serve")
            self.start("serve")
            self.wait_for_serve()
        except wire.Wrong:
            # What an operator does next.
            subprocess.run([self.program, "check", "--config", self.config], stdin=subprocess.DEVNULL,
                           stdout=open(self.folder / "check.log", "ab"), stderr=subprocess.STDOUT, check=False)
            self.start("serve")
            self.wait_for_serve()
            raise
        finally:
            self.down.append((begin, time.monotonic()))

    def last_words(self, name):
        lines = (self.folder / f"{name}.log").read_text(errors="replace").strip().splitlines()
        return lines[-1][:300] if lines else "nothing was logged"

    def pids(self):
        """[(pid, role)] of all processes that run this node's program."""
        found = []
        for entry in os.listdir("/proc"):
            if not entry.isdecimal():
                continue
            try:
                if os.readlink(f"/proc/{entry}/exe") == str(self.program):
                    with open(f"/proc/{entry}/cmdline", "rb") as file:
                        words = file.read().decode(errors="replace").split("\0")
                    found.append((int(entry), next((word for word in words if word in ROLES), "other")))
            except OSError:
                pass
        return found

    def workers(self):
        return [pid for pid, role in self.pids() if role == "decode"]

    def limit_files(self, name, more):
        """Leaves a part `more` file descriptors from now on; None gives them back."""
        pid = self.parts[name].pid
        _, most = resource.prlimit(pid, resource.RLIMIT_NOFILE)
        held = [int(fd) for fd in os.listdir(f"/proc/{pid}/fd")]
        if not held:
            raise ProcessLookupError(f"{name} has ended")
        soft = most if more is None else max(held) + 1 + more
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (min(soft, most), most))

    def stop(self):
        """In the order of `vas up`. Returns what did not go well."""
        wrong = []
        with self.lock:
            for name in PARTS:
                part = self.parts.get(name)
                if part is None:
                    continue
                if part.poll() is not None:
                    wrong.append(f"{name} had ended by itself: {self.last_words(name)}")
                    continue
                part.send_signal(signal.SIGCONT)
                part.terminate()
                try:
                    part.wait(STOP_S)
                except subprocess.TimeoutExpired:
                    part.kill()
                    part.wait()
                    wrong.append(f"{name} did not stop within {STOP_S} s")
        for pid, role in self.pids():
            wrong.append(f"a {role} process was left")
            os.kill(pid, signal.SIGKILL)
        return wrong


class Memory(threading.Thread):
    """Largest resident memory of each role, by the kernel's own high-water mark, read every second."""

    def __init__(self, nodes):
        super().__init__(daemon=True)
        self.nodes, self.end = nodes, threading.Event()
        self.peaks, self.last, self.seen = collections.Counter(), {}, collections.defaultdict(set)

    def run(self):
        while not self.end.wait(1):
            for node in self.nodes:
                for pid, role in node.pids():
                    try:
                        with open(f"/proc/{pid}/status", encoding="ascii", errors="replace") as file:
                            values = dict(line.split(":", 1) for line in file)
                    except OSError:
                        continue
                    # A process that has no memory any more has no such lines.
                    peak = int(values.get("VmHWM", "0").split()[0]) // 1024
                    self.peaks[role] = max(self.peaks[role], peak)
                    self.last[role] = int(values.get("VmRSS", "0").split()[0]) // 1024
                    self.seen[role].add(pid)
