"""Reads recordings as a foreign reader would, and holds them against what the cameras sent.

Knows ISO/IEC 14496-12 as far as docs/recording.md describes segments, and nothing of VAS's code.
"""
import collections
import pathlib
import struct

from . import camera


def boxes(data, begin, end):
    """(type, begin of content, end) of the boxes that are whole."""
    while begin + 8 <= end:
        size, kind = struct.unpack_from(">I4s", data, begin)
        head = 8
        if size == 1:
            size, head = struct.unpack_from(">Q", data, begin + 8)[0], 16
        if size < head or begin + size > end:
            return
        yield kind, begin + head, begin + size
        begin += size


def samples(data):
    """The samples of a segment, in order."""
    for kind, begin, end in boxes(data, 0, len(data)):
        if kind != b"moof":
            continue
        start = begin - 8
        for kind, traf, traf_end in boxes(data, begin, end):
            if kind != b"traf":
                continue
            default_size = 0
            for kind, at, _ in boxes(data, traf, traf_end):
                flags = struct.unpack_from(">I", data, at)[0] & 0xFFFFFF
                at += 4
                if kind == b"tfhd":
                    at += 4 + sum(width for bit, width in ((1, 8), (2, 4), (8, 4)) if flags & bit)
                    default_size = struct.unpack_from(">I", data, at)[0] if flags & 0x10 else 0
                elif kind == b"trun":
                    count, place = struct.unpack_from(">I", data, at)[0], start
                    at += 4
                    if flags & 1:
                        place += struct.unpack_from(">i", data, at)[0]
                        at += 4
                    at += 4 if flags & 4 else 0
                    for _ in range(count):
                        at += 4 if flags & 0x100 else 0
                        size = default_size
                        if flags & 0x200:
                            size = struct.unpack_from(">I", data, at)[0]
                            at += 4
                        at += (4 if flags & 0x400 else 0) + (4 if flags & 0x800 else 0)
                        if place + size <= len(data):
                            yield data[place : place + size]
                        place += size


def nal_units(sample):
    at = 0
    while at + 4 <= len(sample):
        size = struct.unpack_from(">I", sample, at)[0]
        yield sample[at + 4 : at + 4 + size]
        at += 4 + size


class Compared:
    """What recordings of one camera hold of what it sent."""

    def __init__(self, recordings, camera_id, ident, sent, clip):
        self.sent = len(sent)
        self.when = {number: when for _, number, when in sent}
        self.sessions = len({session for session, _, _ in sent})
        self.pictures, self.unnumbered, self.altered, self.order = 0, 0, 0, 0
        held = collections.Counter()
        last = -1
        for segment in sorted(pathlib.Path(recordings, camera_id).glob("*/*.mp4")):
            for sample in samples(segment.read_bytes()):
                self.pictures += 1
                nals = list(nal_units(sample))
                name = next(filter(None, map(camera.read_sei, nals)), None)
                if name is None or name[0] != ident:
                    self.unnumbered += 1
                    continue
                number = name[2]
                held[number] += 1
                slices = [nal for nal in nals if nal[0] & 0x1F in (1, 5)]
                self.altered += slices != clip[number % len(clip)].slices
                self.order += number <= last
                last = number
        self.twice = sum(count - 1 for count in held.values())
        self.missing = sorted(number for number in self.when if number not in held)
        self.foreign = sum(number not in self.when for number in held)

    def holes(self):
        """Runs of missing pictures as (first, last) numbers."""
        runs, before, missing = [], None, set(self.missing)
        for number in sorted(self.when):
            if number in missing:
                if before in missing:
                    runs[-1] = (runs[-1][0], number)
                else:
                    runs.append((number, number))
            before = number
        return runs

    @property
    def sound(self):
        return not (self.unnumbered or self.altered or self.order or self.twice or self.foreign)

    @property
    def whole(self):
        return self.sound and not self.missing and self.sent > 0
