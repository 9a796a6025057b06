"""Cuts a GGUF file into a split set, as its public specification has it: metadata in the first file, tensors over all of
them, `split.no`, `split.count` and `split.tensors.count` in each. Written without the reader under test."""
import struct

SCALARS = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}
STRING, ARRAY, U16, I32 = 8, 9, 2, 5


class Reader:
    def __init__(self, data):
        self.data, self.at = data, 0

    def take(self, code):
        value = struct.unpack_from("<" + code, self.data, self.at)
        self.at += struct.calcsize("<" + code)
        return value[0] if len(value) == 1 else value

    def text(self):
        size = self.take("Q")
        self.at += size
        return self.data[self.at - size:self.at]

    def skip(self, kind):
        if kind == STRING:
            self.text()
        elif kind == ARRAY:
            element, count = self.take("IQ")
            if element == STRING:
                for _ in range(count):
                    self.text()
            else:
                self.at += SCALARS[element] * count
        else:
            self.at += SCALARS[kind]


def text(value):
    return struct.pack("<Q", len(value)) + value


def padded(data, alignment):
    return data + b"\0" * (-len(data) % alignment)


def split(path, stem, parts, alignment=32):
    """Writes STEM-00001-of-0000N.gguf and so on; their paths. The first one holds no tensors when there are more than two."""
    r = Reader(open(path, "rb").read())
    magic, version, tensor_count, key_count = r.take("4sIQQ")
    assert magic == b"GGUF" and version == 3
    start = r.at
    for _ in range(key_count):
        r.text()
        r.skip(r.take("I"))
    keys = r.data[start:r.at]
    tensors = []
    for _ in range(tensor_count):
        name, dims = r.text(), r.take("I")
        shape = [r.take("Q") for _ in range(dims)]
        kind, offset = r.take("IQ")
        tensors.append((name, shape, kind, offset))
    base = r.at + -r.at % alignment
    ends = sorted(t[3] for t in tensors) + [len(r.data) - base]
    size = {offset: end - offset for offset, end in zip(ends, ends[1:])}
    groups = [[]] + [tensors[i::parts - 1] for i in range(parts - 1)] if parts > 2 else [tensors[::2], tensors[1::2]]
    paths = []
    for number, group in enumerate(groups):
        own = text(b"split.no") + struct.pack("<IH", U16, number) + text(b"split.count") + struct.pack("<IH", U16, parts) + \
            text(b"split.tensors.count") + struct.pack("<Ii", I32, tensor_count)
        head = struct.pack("<4sIQQ", b"GGUF", 3, len(group), 3 + (0 if number else key_count)) + (b"" if number else keys) + own
        body = b""
        for name, shape, kind, offset in group:
            head += text(name) + struct.pack("<I", len(shape)) + struct.pack(f"<{len(shape)}Q", *shape) + struct.pack("<IQ", kind, len(body))
            body = padded(body + r.data[base + offset:base + offset + size[offset]], alignment)
        paths.append(f"{stem}-{number + 1:05d}-of-{parts:05d}.gguf")
        with open(paths[-1], "wb") as f:
            f.write(padded(head, alignment) + body)
    return paths
