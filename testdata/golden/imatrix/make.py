"""Makes the golden files of package imatrix: importance matrices in both of llama.cpp's forms, and what llama-quantize
makes of them.

usage: make.py OUT_FOLDER        writes experts.gguf, legacy.dat, want.json

Made with Python 3.11, gguf 0.19.0, numpy 2.4.6. The loader of llama.cpp (common/imatrix-loader.cpp, as vendored by
llama-cpp-python 0.3.36) reads both files to the same sums and counts.
"""
import json
import struct
import sys
from pathlib import Path

import numpy as np
from gguf import GGUFWriter

out = Path(sys.argv[1])
f = np.float32
entries = {  # name: sums of squares (experts, columns), counts by expert
    "blk.0.attn_q.weight": (np.array([[3, 0, 7.5, 0.1]], dtype=f), [3]),
    "blk.0.ffn_down_exps.weight": (np.array([[1, 2], [0, 0]], dtype=f), [7, 0]),
}
w = GGUFWriter(str(out / "experts.gguf"), "none")
w.kv_data[0].clear()  # no general.architecture
w.add_string("general.type", "imatrix")
w.add_array("imatrix.datasets", ["a.txt", "b.txt"])
w.add_uint32("imatrix.chunk_count", 5)
w.add_uint32("imatrix.chunk_size", 512)
want = {}
for name, (sums, counts) in entries.items():
    w.add_tensor(name + ".in_sum2", sums)
    w.add_tensor(name + ".counts", np.array(counts, dtype=f).reshape(-1, 1))
    mean = [row / f(n) if n > 0 else np.ones_like(row) for row, n in zip(sums, counts)]
    want[name] = [float(v) for row in mean for v in row]
w.write_header_to_file()
w.write_kv_data_to_file()
w.write_tensors_to_file()
w.close()

calls = {"blk.0.attn_q.weight": (3, [4, 8, 2.5]), "blk.1.attn_q.weight": (0, [1.5, 2.5])}
data, legacy = struct.pack("<i", len(calls)), {}
for name, (n, sums) in calls.items():
    data += struct.pack("<i", len(name)) + name.encode() + struct.pack("<ii", n, len(sums)) + struct.pack(f"<{len(sums)}f", *sums)
    legacy[name] = [float(f(v) / f(n) if n > 0 else f(v)) for v in sums]
(out / "legacy.dat").write_bytes(data + struct.pack("<ii", 9, 5) + b"c.txt")
(out / "want.json").write_text(json.dumps({"experts.gguf": want, "legacy.dat": legacy}, indent=1))
