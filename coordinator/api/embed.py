"""Turns a file into a C array: embed.py INPUT OUTPUT NAME."""
import sys

source, target, name = sys.argv[1:4]
data = open(source, "rb").read()
with open(target, "w") as out:
    out.write('#include "coordinator/api/dashboard.h"\n\n')
    out.write(f"const size_t {name}_bytes = {len(data)};\nconst unsigned char {name}[] = {{\n")
    for start in range(0, len(data), 20):
        out.write(",".join(str(byte) for byte in data[start:start + 20]) + ",\n")
    out.write("};\n")
