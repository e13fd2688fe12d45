#!/usr/bin/env python3
"""A second reader of Graven trails, written from docs/format.md and nothing else.

    graven_reader.py TRAIL       every segment of a trail, in order, as one chain
    graven_reader.py FILE.seg…   single segments, each by itself

Prints what is there: a line for each header, frame, record and trailer. The first thing that is
not as the document says ends it: file, offset and reason on standard error, exit 1. Exit 2 is a
file that cannot be read.

It needs two frames of memory, one pass, Python's standard library, and for compressed frames the
command `zstd`. It does not check signatures: only that a checkpoint covers what stands before it.
"""

import base64
import binascii
import hashlib
import os
import re
import struct
import subprocess
import sys
import tempfile
import zlib

SOURCES = ["graven", "netlink", "shim", "bpf", "stdin", "socket", "import"]
REASONS = ["full", "stop", "recovery"]
FLAGS_KNOWN = 7
CHECKPOINT = 4
RECORD_PAYLOAD_BYTES_MAX = 131072
SEGMENT_HEADER_BYTES = 216
TRAILER_BYTES = 168
FRAME_HEADER_BYTES = 72
FRAME_BYTES_MAX = 262144
FRAME_RECORDS_MAX = 2048
CODEC_ZSTD = 1
ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
HEADER_BYTES_MAX = 65536
RECORD_HEADER_BYTES = 32
INDEX_STRIDE_BYTES = 262144
BLOCK_LEVEL = 10
BLOCKS_MAX = 2048
NOTE_BYTES_MAX = 768
SEGMENT_BYTES_MIN = 524288
SEGMENT_BYTES_MAX = 1073741824
SEGMENT_NAME = re.compile(r"([0-9a-f]{16})-([0-9a-f]{16})\.seg")


class Damage(Exception):
    """Something is not as the document says: at this offset, for this reason."""

    def __init__(self, offset, why):
        super().__init__(why)
        self.offset = offset


def expect(condition, offset, why):
    if not condition:
        raise Damage(offset, why)


def u16(data, at):
    return struct.unpack_from("<H", data, at)[0]


def u32(data, at):
    return struct.unpack_from("<I", data, at)[0]


def u64(data, at):
    return struct.unpack_from("<Q", data, at)[0]


def is_zero(data):
    return not any(data)


def align_up(length, align):
    return -(-length // align) * align


def unzstd(payload, raw_len, at):
    """The records of a compressed payload: one Zstandard frame, of exactly so many bytes."""
    sound = payload[:4] == ZSTD_MAGIC and zstd_frame_len(payload) == len(payload)
    expect(sound, at, "a payload that is not one Zstandard frame")
    command = ["zstd", "--decompress", "--stdout", "--quiet", "--memory=8MB"]
    with tempfile.TemporaryFile() as stored:
        stored.write(payload)
        stored.seek(0)
        quiet = {"stdin": stored, "stderr": subprocess.DEVNULL}
        with subprocess.Popen(command, stdout=subprocess.PIPE, **quiet) as process:
            # However much it would make of it, no more than that is taken.
            raw = process.stdout.read(raw_len + 1)
            process.stdout.close()
    sound = process.returncode == 0 and len(raw) == raw_len
    expect(sound, at, f"a payload that does not decode to {raw_len} bytes")
    return raw


def zstd_frame_len(data):
    """Bytes of the Zstandard frame that begins `data`, by its header and blocks (RFC 8878, 3.1.1)."""
    descriptor = data[4] if len(data) > 4 else 0
    single = descriptor >> 5 & 1
    size_len = (single, 2, 4, 8)[descriptor >> 6]
    at = 5 + (1 - single) + (0, 1, 2, 4)[descriptor & 3] + size_len
    while at + 3 <= len(data):
        block = int.from_bytes(data[at : at + 3], "little")
        # A run-length block is one byte, whatever it stands for.
        at += 3 + (1 if block >> 1 & 3 == 1 else block >> 3)
        if block & 1:
            return at + (4 if descriptor & 4 else 0)
    return None


# The Merkle tree -----------------------------------------------------------------------------


def leaf_hash(stored):
    return hashlib.sha256(b"\0" + stored).digest()


def node_hash(left, right):
    return hashlib.sha256(b"\1" + left + right).digest()


class Range:
    """A compact range: the largest perfect subtrees that cover the leaves [begin, end)."""

    def __init__(self, begin, nodes=(), end=None):
        self.begin, self.end = begin, begin
        self.levels, self.nodes = [], []
        if end is not None:
            for node, level in zip(nodes, levels_of(begin, end)):
                self.levels.append(level)
                self.nodes.append(node)
            self.end = end

    def append(self, node, level=0):
        """Appends a perfect subtree of 2^level leaves that begins at the end."""
        self.end += 1 << level
        # It is a right child if the leaves before it, in units of its size, are odd in number.
        at = self.end - (1 << level)
        while self.levels and self.levels[-1] == level and at >> level & 1:
            node = node_hash(self.nodes.pop(), node)
            self.levels.pop()
            level += 1
            at -= 1 << (level - 1)
        self.levels.append(level)
        self.nodes.append(node)

    def join(self, right):
        for node, level in zip(right.nodes, right.levels):
            self.append(node, level)

    def root(self):
        if not self.nodes:
            return hashlib.sha256().digest()
        root = self.nodes[-1]
        for node in reversed(self.nodes[:-1]):
            root = node_hash(node, root)
        return root


def levels_of(begin, end):
    """The sizes of the subtrees of [begin, end), as powers of two."""
    levels, at = [], begin
    while at < end:
        largest = (end - at).bit_length() - 1
        zeros = (at & -at).bit_length() - 1 if at else 64
        levels.append(min(zeros, largest))
        at += 1 << levels[-1]
    return levels


def whole_blocks(begin, end, level):
    """How many blocks of 2^level leaves lie whole in [begin, end)."""
    return max((end >> level) - (-(-begin >> level)), 0)


def block_level(begin, end):
    level = BLOCK_LEVEL
    while whole_blocks(begin, end, level) > BLOCKS_MAX:
        level += 1
    return level


class Blocks:
    """The hash of each whole block of 2^BLOCK_LEVEL leaves."""

    def __init__(self, begin):
        self.begin, self.open, self.hashes = begin, Range(begin), []

    def append(self, leaf):
        self.open.append(leaf)
        if self.open.end & ((1 << BLOCK_LEVEL) - 1) == 0:
            if self.open.end - self.open.begin == 1 << BLOCK_LEVEL:
                self.hashes += self.open.nodes
            self.open = Range(self.open.end)

    def at_level(self, level):
        hashes = self.hashes
        for below in range(BLOCK_LEVEL, level):
            odd = -(-self.begin >> below) & 1
            pairs = zip(hashes[odd::2], hashes[odd + 1 :: 2])
            hashes = [node_hash(left, right) for left, right in pairs]
        return hashes


def read_range(data, at, count, begin, end, offset):
    expect(count == len(levels_of(begin, end)), offset, "a range with another number of hashes")
    hashes = [data[at + 32 * n : at + 32 * n + 32] for n in range(count)]
    return Range(begin, hashes, end)


# A segment -----------------------------------------------------------------------------------


class Segment:
    """One segment, read from front to back. `emit` gets each line."""

    def __init__(self, path, emit):
        self.file = open(path, "rb")
        self.len = os.fstat(self.file.fileno()).st_size
        self.emit = emit
        self.sealed = False
        self.tree = self.blocks = None
        self.index = []
        self.records = self.frames = self.record_bytes = 0
        self.times = []

    def bytes_at(self, offset, length):
        self.file.seek(offset)
        return self.file.read(min(length, max(self.len - offset, 0)))

    def read(self, number, first_seq):
        """Reads it all. The name says its number and first seq."""
        self.read_header(number, first_seq)
        at = self.header_len
        while True:
            head = self.bytes_at(at, FRAME_HEADER_BYTES)
            if head[:4] == b"GRVF":
                at = self.read_frame(at)
            elif head[:8] == b"GRAVENTR":
                return self.read_trailer(at, at)
            else:
                return self.read_end(at)

    def read_header(self, number, first_seq):
        data = self.bytes_at(0, HEADER_BYTES_MAX)
        expect(data[:8] == b"GRAVENSG", 0, "no segment header")
        expect(len(data) >= SEGMENT_HEADER_BYTES, 0, "a segment header that is cut off")
        self.header_len = u32(data, 20)
        fits = SEGMENT_HEADER_BYTES <= self.header_len <= len(data)
        expect(fits, 0, "a segment header of an impossible length")
        data = data[: self.header_len]
        self.crc = u32(data, 8)
        expect(zlib.crc32(data[12:]) == self.crc, 0, "the header's checksum")
        version, features = u16(data, 12), u32(data, 16)
        expect(version == 1, 0, f"format version {version}, which this reader does not know")
        expect(features == 0, 0, f"features {features:#x}, which this reader does not know")
        self.align, self.prev_crc = u32(data, 24), u32(data, 28)
        expect(self.align in (512, 1024, 2048, 4096), 0, "an impossible alignment")
        expect(self.header_len % self.align == 0, 0, "a header of no whole blocks")
        self.trail_id = data[32:48]
        self.number, self.first_seq, self.segment_len = (u64(data, at) for at in (48, 56, 64))
        expect((self.number, self.first_seq) == (number, first_seq), 0, "another segment's name")
        sized = SEGMENT_BYTES_MIN <= self.segment_len <= SEGMENT_BYTES_MAX
        expect(sized and self.segment_len % self.align == 0, 0, "an impossible segment length")
        expect(self.len <= self.segment_len, self.segment_len, "bytes behind the segment's end")
        host_len, peak_count = data[104], data[105]
        expect(host_len <= 64, 0, "an impossible host")
        end = SEGMENT_HEADER_BYTES + 32 * peak_count
        expect(end <= self.header_len, 0, "more hashes than the header holds")
        zero = [data[14:16], data[106:112], data[112 + host_len : 176], data[end:]]
        expect(all(map(is_zero, zero)), 0, "padding that is not zero")
        epoch, key = u64(data, 176), data[184:216]
        expect(epoch == 0 or not is_zero(key), 0, "an epoch without a key")
        self.before = read_range(data, SEGMENT_HEADER_BYTES, peak_count, 0, self.first_seq, 0)
        self.tree, self.blocks = Range(self.first_seq), Blocks(self.first_seq)
        self.seq, self.last_crc = self.first_seq, self.crc
        self.emit(
            f"header crc={self.crc:08x} align={self.align} prev_crc={self.prev_crc:08x} "
            f"trail={self.trail_id.hex()} segment={self.number} first_seq={self.first_seq} "
            f"len={self.segment_len} realtime={u64(data, 72)} boottime={u64(data, 80)} "
            f"boot={data[88:104].hex()} host={data[112 : 112 + host_len].hex()} "
            f"epoch={epoch} key={key.hex()} "
            f"before={b''.join(self.before.nodes).hex()}"
        )

    def read_frame(self, at):
        data = self.bytes_at(at, FRAME_BYTES_MAX)
        expect(len(data) >= FRAME_HEADER_BYTES, at, "a frame that is cut off")
        crc, frame_len, payload_len, raw_len, count = (u32(data, n) for n in (4, 8, 12, 16, 20))
        fits = FRAME_HEADER_BYTES <= frame_len <= len(data) and frame_len % self.align == 0
        expect(fits, at, "a frame of an impossible length")
        data = data[:frame_len]
        expect(zlib.crc32(data[8:]) == crc, at, "the frame's checksum")
        codec, prev_crc = data[24], u32(data, 28)
        expect(codec in (0, CODEC_ZSTD), at, f"codec {codec}, which this reader does not know")
        expect(is_zero(data[25:28]), at, "padding that is not zero")
        mine = data[32:48] == self.trail_id and u64(data, 48) == self.number
        expect(mine, at, "a frame of another trail or segment")
        first_seq, announced = u64(data, 56), u64(data, 64)
        expect(prev_crc == self.last_crc, at, "a frame that does not follow the one before it")
        expect(first_seq == self.seq, at, f"seq {first_seq} where {self.seq} was expected")
        expect(announced <= first_seq, at, "more announced than there was")
        expect(1 <= count <= FRAME_RECORDS_MAX, at, "an impossible number of records")
        end = FRAME_HEADER_BYTES + payload_len
        tight = end <= frame_len == align_up(end, self.align)
        fits = raw_len == payload_len or codec == CODEC_ZSTD
        fits = fits and RECORD_HEADER_BYTES <= raw_len <= FRAME_BYTES_MAX - FRAME_HEADER_BYTES
        expect(tight and fits, at, "lengths that do not agree")
        expect(is_zero(data[end:]), at, "padding that is not zero")
        self.emit(
            f"frame at={at} crc={crc:08x} len={frame_len} payload={payload_len} raw={raw_len} "
            f"codec={codec} records={count} "
            f"prev_crc={prev_crc:08x} first_seq={first_seq} announced={announced}"
        )
        data = data[:end]
        if codec == CODEC_ZSTD:
            data = data[:FRAME_HEADER_BYTES] + unzstd(data[FRAME_HEADER_BYTES:], raw_len, at)
        if not self.index or at - self.index[-1][1] >= INDEX_STRIDE_BYTES:
            self.index.append((first_seq, at, u64(data, FRAME_HEADER_BYTES + 8)))
        place = FRAME_HEADER_BYTES
        for _ in range(count):
            place = self.read_record(data, place, at, codec)
        expect(place == len(data), at + place, "bytes behind the last record")
        self.frames += 1
        self.last_crc = crc
        return at + frame_len

    def read_record(self, data, place, at, codec):
        # A compressed record has no place of its own.
        offset = at + place if codec == 0 else at
        expect(place + RECORD_HEADER_BYTES <= len(data), offset, "a record that is cut off")
        length, kind = u32(data, place), u16(data, place + 4)
        source, flags = data[place + 6], data[place + 7]
        end = place + RECORD_HEADER_BYTES + length
        fits = length <= RECORD_PAYLOAD_BYTES_MAX and end <= len(data)
        expect(fits, offset, "a record that is cut off")
        expect(source < len(SOURCES) and flags & ~FLAGS_KNOWN == 0, offset, "an unknown record")
        realtime, boottime, source_seq = struct.unpack_from("<QQQ", data, place + 8)
        self.emit(
            f"record seq={self.seq} at={offset} source={SOURCES[source]} kind={kind} "
            f"flags={flags} realtime={realtime} boottime={boottime} source_seq={source_seq} "
            f"bytes={data[place + RECORD_HEADER_BYTES : end].hex()}"
        )
        if flags & CHECKPOINT:
            expect(source == 0, offset, "a checkpoint of another source")
            self.check_note(data[place + RECORD_HEADER_BYTES : end], self.seq, offset)
        leaf = leaf_hash(data[place:end])
        self.tree.append(leaf)
        self.blocks.append(leaf)
        self.times.append(realtime)
        self.times = [min(self.times), max(self.times)]
        self.seq += 1
        self.records += 1
        self.record_bytes += end - place
        return end

    def root(self):
        whole = Range(0, self.before.nodes, self.before.end)
        whole.join(self.tree)
        return whole.root()

    def check_note(self, note, size, at, sealed=None):
        """A signed note over the `size` records before it, whose tree is what was read so far."""
        expect(len(note) <= NOTE_BYTES_MAX, at, "a note that is too long")
        try:
            text, signatures = note.decode().split("\n\n")
            origin, stated, root, *rest = text.split("\n")
            root = base64.b64decode(root, validate=True)
            lines = signatures.split("\n")
        except (ValueError, binascii.Error):
            raise Damage(at, "a checkpoint that is no signed note") from None
        signed = len(lines) == 2 and lines[0].startswith("\u2014 ") and lines[1] == ""
        expect(signed, at, "a checkpoint without its signature")
        expect(origin == f"graven/{self.trail_id.hex()}", at, "a checkpoint of another trail")
        expect(stated == str(size), at, "a checkpoint over another number of records")
        expect(root == self.root(), at, "a checkpoint over other records")
        if sealed is not None:
            line = "sealed " + base64.b64encode(sealed).decode()
            expect(rest == [line], at, "a checkpoint of another header, reason or time")
        else:
            plain = not rest or (len(rest) == 1 and rest[0].startswith(f"successor {origin}+"))
            expect(plain, at, "a checkpoint with unknown lines")

    def read_trailer(self, at, frames_end):
        head = self.bytes_at(at, TRAILER_BYTES)
        expect(len(head) == TRAILER_BYTES, at, "a trailer that is cut off")
        crc, length = u32(head, 8), u32(head, 12)
        fits = TRAILER_BYTES + 16 <= length <= min(FRAME_BYTES_MAX, self.len - at) and length % self.align == 0
        expect(fits, at, "a trailer of an impossible length")
        data = self.bytes_at(at, length)
        expect(zlib.crc32(data[12:-16]) == crc, at, "the trailer's checksum")
        footer = data[-16:-8] == b"GRAVENED" and u32(data, length - 8) == length
        expect(footer and u32(data, length - 4) == crc, at, "the trailer's footer")
        expect(at + length == self.len, at + length, "bytes behind the trailer")
        mine = data[16:32] == self.trail_id and u64(data, 32) == self.number
        expect(mine, at, "a trailer of another trail or segment")
        first_seq, records, frames, end = (u64(data, n) for n in (40, 48, 56, 64))
        low, high = self.times or (0, 0)
        stated = (first_seq, records, frames, end, u32(data, 72)) + struct.unpack_from("<QQQ", data, 80)
        found = (self.first_seq, self.records, self.frames, frames_end, self.last_crc)
        expect(stated == found + (low, high, self.record_bytes), at, "counts that do not agree")
        reason = data[76]
        expect(reason < len(REASONS), at, "an unknown reason")
        level, note_len = data[77], u16(data, 78)
        nodes, entries, first_crc = (u32(data, n) for n in (144, 148, 152))
        rewritten, block_count = data[156], u32(data, 160)
        expect(rewritten == 1 or (rewritten, first_crc) == (0, 0), at, "an impossible rewriting")
        blocks_at = TRAILER_BYTES + 32 * nodes
        index_at = blocks_at + 32 * block_count
        index_end = index_at + 24 * entries
        note_end = index_end + note_len
        expect(note_end <= length - 16, at, "more than the trailer holds")
        zero = [data[157:160], data[164:168], data[note_end:-16]]
        expect(all(map(is_zero, zero)), at, "padding that is not zero")
        own = read_range(data, TRAILER_BYTES, nodes, first_seq, first_seq + records, at)
        expect(own.nodes == self.tree.nodes, at, "a tree that is not that of the records")
        expect(level == block_level(first_seq, self.seq), at, "blocks of an impossible size")
        blocks = [data[blocks_at + 32 * n : blocks_at + 32 * n + 32] for n in range(block_count)]
        expect(blocks == self.blocks.at_level(level), at, "blocks that are not those of the records")
        index = [struct.unpack_from("<QQQ", data, index_at + 24 * n) for n in range(entries)]
        expect(index == self.index, at, "an index that is not that of the frames")
        root = data[112:144]
        expect(root == self.root(), at, "a root that is not that of the records")
        note = data[index_end:note_end]
        if note:
            sealed = hashlib.sha256(self.bytes_at(0, self.header_len) + data[76:77] + data[104:112])
            self.check_note(note, self.seq, at, sealed.digest())
        first = f"Some({first_crc:08x})" if rewritten else "None"
        places = ",".join(f"{seq}@{place}/{time}" for seq, place, time in index)
        self.emit(
            f"trailer crc={crc:08x} len={length} first_seq={first_seq} records={records} "
            f"frames={frames} frames_end={end} last_crc={self.last_crc:08x} "
            f"realtime={low}..{high} record_bytes={self.record_bytes} reason={REASONS[reason]} "
            f"sealed={u64(data, 104)} root={root.hex()} "
            f"range={b''.join(own.nodes).hex()} level={level} blocks={b''.join(blocks).hex()} "
            f"index={places} first_crc={first} note={note.hex()}"
        )
        self.crc_of_trailer = first_crc if rewritten else crc
        self.sealed = True

    def read_end(self, at):
        """Zeros, and behind them a trailer at the end of the file or nothing."""
        frames_end, end, trailer_at = at, self.len, None
        footer = self.bytes_at(self.len - 16, 16) if self.len >= at + 16 else b""
        if footer[:8] == b"GRAVENED":
            trailer_at = self.len - u32(footer, 8)
            sound = trailer_at >= at and self.bytes_at(trailer_at, 8) == b"GRAVENTR"
            expect(sound, at, "a footer without its trailer")
            end = trailer_at
        while at < end:
            piece = self.bytes_at(at, min(FRAME_BYTES_MAX, end - at))
            if not is_zero(piece):
                raise Damage(at, "bytes that are no frame")
            at += len(piece)
        if trailer_at is not None:
            return self.read_trailer(trailer_at, frames_end)
        expect(self.len == self.segment_len, self.len, "a segment that was cut")


# A trail -------------------------------------------------------------------------------------


def read_segment(path, emit):
    match = SEGMENT_NAME.fullmatch(os.path.basename(path))
    expect(match, 0, "not the name of a segment")
    segment = Segment(path, emit)
    with segment.file:
        segment.read(int(match[1], 16), int(match[2], 16))
    return segment


def read_identity(directory):
    with open(os.path.join(directory, "identity"), "rb") as file:
        data = file.read(41)
    sound = len(data) == 40 and data[:8] == b"GRAVENID" and zlib.crc32(data[12:]) == u32(data, 8)
    expect(sound, 0, "the trail's identity")
    expect(u16(data, 12) == 1 and u16(data, 14) == 0, 0, "an unknown identity")
    return data[16:32]


def main(arguments):
    if not arguments or arguments[0].startswith("-"):
        print(__doc__, file=sys.stderr)
        return 2
    out = sys.stdout

    def emit(line):
        out.write(f"  {line}\n")

    path = arguments[0]
    try:
        if not os.path.isdir(path):
            for path in arguments:
                out.write(os.path.basename(path) + "\n")
                read_segment(path, emit)
            return 0
        directory, path = path, os.path.join(path, "identity")
        trail_id = read_identity(directory)
        names = sorted(name for name in os.listdir(directory) if SEGMENT_NAME.fullmatch(name))
        before = None
        for number, name in enumerate(names):
            path = os.path.join(directory, name)
            out.write(name + "\n")
            segment = read_segment(path, emit)
            expect(segment.trail_id == trail_id, 0, "a segment of another trail")
            if before is None:
                expect(number == segment.number, 0, "a segment is missing before this one")
                expect((segment.first_seq, segment.prev_crc) == (0, 0), 0, "it is not the first")
            else:
                expect(before.sealed, 0, "the segment before this one was never sealed")
                expect(segment.number == before.number + 1, 0, "a segment is missing before this one")
                follows = segment.first_seq == before.seq and segment.prev_crc == before.crc_of_trailer
                expect(follows, 0, "it does not follow the segment before it")
            before = segment
        return 0
    except Damage as damage:
        out.flush()
        print(f"{path}: offset {damage.offset}: {damage}", file=sys.stderr)
        return 1
    except OSError as error:
        print(f"{error.filename}: {error.strerror}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
