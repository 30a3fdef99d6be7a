"""Blocks of GGUF decoded plainly, one element at a time from the layout: what a reader must give, bit for bit. Products and differences are
rounded to float32 one by one. Kept slow and apart from the program's own decoder, so that the one checks the other."""
import struct

import numpy as np

F = np.float32
IQ4 = (-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113)
E2M1 = (0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12)


def half(block, at):
    return F(np.frombuffer(block[at:at + 2], "<f2")[0])


def nibble(codes, j):
    return codes[j] & 15 if j < len(codes) else codes[j - len(codes)] >> 4


def simple(offset, least=False, five=None):
    """d, m where there is a least value, u32 of fifth bits from byte `five` on, 16 bytes of nibbles: (q - offset) * d + m."""
    def decode(block):
        d, m = half(block, 0), half(block, 2) if least else None
        bits = struct.unpack("<I", block[five:five + 4])[0] if five is not None else 0
        start = (five + 4) if five is not None else (4 if m is not None else 2)
        values = []
        for j in range(32):
            q = nibble(block[start:start + 16], j) | (bits >> j & 1) << 4
            value = F(d * F(q - offset))
            values.append(F(value + m) if m is not None else value)
        return values
    return decode


def q8_0(block):
    return [F(F(q) * half(block, 0)) for q in np.frombuffer(block[2:], "i1")]


def six_bits(s, j):
    if j < 4:
        return s[j] & 63, s[j + 4] & 63
    return (s[j + 4] & 15) | (s[j - 4] >> 6) << 4, (s[j + 4] >> 4) | (s[j] >> 6) << 4


def q2_k(block):
    d, dmin, out = half(block, 80), half(block, 82), []
    for e in range(256):
        scale = block[e // 16]
        q = block[16 + e // 128 * 32 + e % 32] >> 2 * (e % 128 // 32) & 3
        out.append(F(F(F(d * F(scale & 15)) * F(q)) - F(dmin * F(scale >> 4))))
    return out


def q3_k(block):
    d, out = half(block, 108), []
    for e in range(256):
        i = e // 16
        low = block[96 + i] & 15 if i < 8 else block[96 + i - 8] >> 4
        scale = (low | (block[104 + i % 4] >> 2 * (i // 4) & 3) << 4) - 32
        q = block[32 + e // 128 * 32 + e % 32] >> 2 * (e % 128 // 32) & 3
        q -= 0 if block[e % 32] >> (e // 32) & 1 else 4
        out.append(F(F(d * F(scale)) * F(q)))
    return out


def q4_k(block, high=None, codes=16):
    d, dmin, out = half(block, 0), half(block, 2), []
    for e in range(256):
        scale, least = six_bits(block[4:16], e // 32)
        q = block[codes + e // 64 * 32 + e % 32] >> 4 * (e // 32 % 2) & 15
        if high is not None:
            q |= (block[high + e % 32] >> (e // 32) & 1) << 4
        out.append(F(F(F(d * F(scale)) * F(q)) - F(dmin * F(least))))
    return out


def q6_k(block):
    d, out = half(block, 208), []
    scales = np.frombuffer(block[192:208], "i1")
    for e in range(256):
        part, l = e % 128 // 32, e % 32
        q = block[e // 128 * 64 + part % 2 * 32 + l] >> 4 * (part // 2) & 15
        q |= (block[128 + e // 128 * 32 + l] >> 2 * part & 3) << 4
        out.append(F(F(d * F(scales[e // 16])) * F(q - 32)))
    return out


def iq4_nl(block):
    return [F(half(block, 0) * F(IQ4[nibble(block[2:18], j)])) for j in range(32)]


def iq4_xs(block):
    d, high, out = half(block, 0), struct.unpack("<H", block[2:4])[0], []
    for e in range(256):
        i = e // 32
        scale = (block[4 + i // 2] >> 4 * (i % 2) & 15 | (high >> 2 * i & 3) << 4) - 32
        out.append(F(F(d * F(scale)) * F(IQ4[nibble(block[8 + 16 * i:24 + 16 * i], e % 32)])))
    return out


def tq1_0(block):
    d, out = half(block, 52), []
    for first, width, digits in ((0, 32, 5), (32, 16, 5), (48, 4, 4)):
        for digit in range(digits):
            for j in range(width):
                out.append(F(d * F((block[first + j] * 3 ** digit % 256 * 3 >> 8) - 1)))
    return out


def tq2_0(block):
    return [F(half(block, 64) * F((block[e // 128 * 32 + e % 32] >> 2 * (e % 128 // 32) & 3) - 1)) for e in range(256)]


def mxfp4(block):
    d = np.array([0x00200000 << block[0] if block[0] < 2 else (block[0] - 1) << 23], "<u4").view("<f4")[0]
    return [F(d * F(E2M1[nibble(block[1:17], j)])) for j in range(32)]


def nvfp4(block):
    out = []
    for e in range(64):
        s = block[e // 16]
        exponent, mantissa = s >> 3 & 15, s & 7
        d = 0.0 if s in (0, 0x7F) else (mantissa * 2.0 ** -9 if exponent == 0 else (1 + mantissa / 8) * 2.0 ** (exponent - 7)) / 2
        out.append(F(F(d) * F(E2M1[nibble(block[4 + e // 16 * 8:12 + e // 16 * 8], e % 16)])))
    return out


def q1_0(block):
    return [half(block, 0) if block[2 + j // 8] >> j % 8 & 1 else -half(block, 0) for j in range(128)]


def q2_0(block):
    return [F(half(block, 0) * F((block[2 + j // 4] >> 2 * (j % 4) & 3) - 1)) for j in range(64)]


# name -> (GGUF's number, elements, bytes, places of half floats, decoder)
TYPES = {
    "Q4_0": (2, 32, 18, (0,), simple(8)), "Q4_1": (3, 32, 20, (0, 2), simple(0, True)),
    "Q5_0": (6, 32, 22, (0,), simple(16, five=2)), "Q5_1": (7, 32, 24, (0, 2), simple(0, True, 4)),
    "Q8_0": (8, 32, 34, (0,), q8_0), "Q2_K": (10, 256, 84, (80, 82), q2_k), "Q3_K": (11, 256, 110, (108,), q3_k),
    "Q4_K": (12, 256, 144, (0, 2), q4_k), "Q5_K": (13, 256, 176, (0, 2), lambda b: q4_k(b, 16, 48)), "Q6_K": (14, 256, 210, (208,), q6_k),
    "IQ4_NL": (20, 32, 18, (0,), iq4_nl), "IQ4_XS": (23, 256, 136, (0,), iq4_xs), "TQ1_0": (34, 256, 54, (52,), tq1_0),
    "TQ2_0": (35, 256, 66, (64,), tq2_0), "MXFP4": (39, 32, 17, (), mxfp4), "NVFP4": (40, 64, 36, (), nvfp4),
    "Q1_0": (41, 128, 18, (0,), q1_0), "Q2_0": (42, 64, 18, (0,), q2_0),
}
PLAIN = {"F32": (0, "<f4"), "F16": (1, "<f2"), "I8": (24, "i1"), "I16": (25, "<i2"), "I32": (26, "<i4"), "F64": (28, "<f8"), "BF16": (30, "<u2")}


def random_blocks(name, blocks, random):
    """Any bits, but scales that are finite."""
    _, _, size, halves, _ = TYPES[name]
    data = random.integers(0, 256, (blocks, size), dtype=np.uint8)
    for at in halves:
        data[:, at:at + 2] = (random.standard_normal(blocks) * 2.0 ** random.integers(-8, 3, blocks)).astype("<f2").view(np.uint8).reshape(-1, 2)
    if name == "MXFP4":
        data[:, 0] = random.integers(0, 160, blocks)
    return data.tobytes()


def decode(name, data):
    size, one = TYPES[name][2], TYPES[name][4]
    return np.array([value for at in range(0, len(data), size) for value in one(data[at:at + size])], np.float32)


def text(value):
    return struct.pack("<Q", len(value)) + value


def value(content):
    """A key's value with its type."""
    if isinstance(content, bool):
        return struct.pack("<IB", 7, content)
    if isinstance(content, int):
        return struct.pack("<II", 4, content)
    if isinstance(content, float):
        return struct.pack("<If", 6, content)
    if isinstance(content, list):
        return struct.pack("<IIQ", 9, 8, len(content)) + b"".join(text(word.encode()) for word in content)
    return struct.pack("<I", 8) + text(content.encode())


def gguf(tensors, keys=(), alignment=32, version=3):
    """tensors: (name, shape row-major, GGUF's number of the type, bytes); keys: (key, value)."""
    head, body = b"", b""
    for name, shape, kind, data in tensors:
        head += text(name.encode()) + struct.pack("<I", len(shape)) + b"".join(struct.pack("<Q", n) for n in reversed(shape))
        head += struct.pack("<IQ", kind, len(body))
        body += data + b"\0" * (-len(data) % alignment)
    pairs = b"".join(text(key.encode()) + value(content) for key, content in keys)
    whole = b"GGUF" + struct.pack("<IQQ", version, len(tensors), len(keys)) + pairs + head
    return whole + b"\0" * (-len(whole) % alignment) + body


# More than 40 lines: the layout of a file from its first byte to its last.
def read_gguf(path):
    """(keys as raw names, name -> (type's number, shape, bytes)), read plainly."""
    with open(path, "rb") as file:
        data = file.read()
    magic, version, tensors, pairs = struct.unpack_from("<4sIQQ", data)
    assert (magic, version) == (b"GGUF", 3)
    at, keys, sizes = 24, {}, {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}

    def text():
        nonlocal at
        length, = struct.unpack_from("<Q", data, at)
        at += 8 + length
        return data[at - length:at].decode()

    def item(kind):
        nonlocal at
        if kind == 8:
            return text()
        at += sizes[kind]
        return int.from_bytes(data[at - sizes[kind]:at], "little")

    for _ in range(pairs):
        key = text()
        kind, = struct.unpack_from("<I", data, at)
        at += 4
        if kind == 9:
            kind, count = struct.unpack_from("<IQ", data, at)
            at += 12
            keys[key] = [item(kind) for _ in range(count)]
        else:
            keys[key] = item(kind)
    found = {}
    for _ in range(tensors):
        name = text()
        rank, = struct.unpack_from("<I", data, at)
        dims = struct.unpack_from(f"<{rank}Q", data, at + 4)
        kind, offset = struct.unpack_from("<IQ", data, at + 4 + 8 * rank)
        at += 16 + 8 * rank
        found[name] = (kind, dims[::-1], offset)
    base = -(-at // 32) * 32
    for name, (kind, shape, offset) in found.items():
        by_number = {number: (elements, size) for number, elements, size, _, _ in TYPES.values()}
        elements, size = by_number.get(kind, (1, {0: 4, 1: 2, 24: 1, 25: 2, 26: 4, 27: 8, 28: 8, 30: 2}.get(kind)))
        length = int(np.prod(shape, dtype=np.int64)) // elements * size
        found[name] = (kind, shape, data[base + offset:base + offset + length])
    return keys, found
