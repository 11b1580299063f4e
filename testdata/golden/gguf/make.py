"""Goldens of package gguf: files of gguf-py's GGUFWriter, and ggml's table of types.

usage: make.py OUT_FOLDER

Made with gguf 0.19.0, numpy 2.4.6, llama-cpp-python 0.3.36 (ggml 0.25.3, for types.json only).

  NAME.gguf    a file
  files.json   what each holds, in order: entries (key, type, element type of an array, value) and
               tensors (name, dims in ggml's order, type, hex data), with the alignment
  types.json   number, name, elements and bytes of a block, of every type of ggml
"""
import ctypes
import json
import sys
from pathlib import Path

import gguf
import llama_cpp
import numpy as np
from gguf import GGMLQuantizationType as Q
from gguf import GGUFValueType as V

INTEGERS = {V.UINT8: (0, 255), V.INT8: (-128, 127), V.UINT16: (0, 65535), V.INT16: (-32768, 32767),
            V.UINT32: (0, 2**32 - 1), V.INT32: (-2**31, 2**31 - 1), V.UINT64: (0, 2**64 - 1), V.INT64: (-2**63, 2**63 - 1)}

# Every value type, at its ends, alone and as an array. Floats are exact in binary.
VALUES = [(f"scalar.{t.name.lower()}.{i}", t, None, v) for t, ends in INTEGERS.items() for i, v in enumerate(ends)]
VALUES += [(f"array.{t.name.lower()}", V.ARRAY, t, [*ends, 1]) for t, ends in INTEGERS.items()]
VALUES += [
    ("scalar.float32", V.FLOAT32, None, 2.0**-149), ("scalar.float64", V.FLOAT64, None, 0.1),
    ("scalar.true", V.BOOL, None, True), ("scalar.false", V.BOOL, None, False),
    ("scalar.string", V.STRING, None, "größe 重み 🦙\n\x00"),
    ("array.float32", V.ARRAY, V.FLOAT32, [0.5, -2.0, 3.4028234663852886e38]),
    ("array.float64", V.ARRAY, V.FLOAT64, [0.1, -1e300]),
    ("array.bool", V.ARRAY, V.BOOL, [True, False, True]),
    ("array.string", V.ARRAY, V.STRING, ["", "a", "Ġthe", "", "größe", "🦙"]),
]

ALL = [Q.F32, Q.F16, Q.BF16, Q.F64, Q.I8, Q.I16, Q.I32, Q.I64, Q.Q4_0, Q.Q4_1, Q.Q5_0, Q.Q5_1, Q.Q8_0, Q.Q2_K, Q.Q3_K, Q.Q4_K, Q.Q5_K,
       Q.Q6_K, Q.IQ2_XXS, Q.IQ2_XS, Q.IQ2_S, Q.IQ3_XXS, Q.IQ3_S, Q.IQ1_S, Q.IQ1_M, Q.IQ4_NL, Q.IQ4_XS, Q.TQ1_0, Q.TQ2_0, Q.MXFP4, Q.NVFP4, Q.Q1_0]

# name: alignment (None for the default), entries, tensors (name, shape as numpy has it, type)
FILES = {
    "values": (None, VALUES, []),
    "tensors": (None, [("general.name", V.STRING, None, "tensors")],
                [("token_embd.weight", (3, 5), Q.F32), ("scalar", (), Q.F32), ("four", (1, 2, 3, 4), Q.F16), ("a" * 63, (7,), Q.I8),
                 ("blk.0.attn_q.weight", (3, 64), Q.Q4_1), ("größe", (1,), Q.BF16)]),
    "types": (None, [], [(q.name, (2, 256), q) for q in ALL]),
    "aligned": (64, [("after", V.UINT32, None, 7)], [("x", (1,), Q.F32), ("y", (17,), Q.F32), ("z", (33,), Q.I8)]),
    "version2": (None, [("key", V.STRING, None, "value")], [("x", (2, 32), Q.Q8_0)]),
}


def write(path, alignment, entries, tensors, rng):
    listed = []
    writer = gguf.GGUFWriter(path, "golden")
    kvs = [("general.architecture", V.STRING, None, "golden")]
    if alignment:
        writer.add_custom_alignment(alignment)
        kvs.append(("general.alignment", V.UINT32, None, alignment))
    for key, t, elem, value in entries:
        writer.add_key_value(key, value, t, elem)
    kvs += entries
    for name, shape, q in tensors:
        elems, size = gguf.GGML_QUANT_SIZES[q]
        n = int(np.prod(shape, dtype=np.int64)) // elems * size
        data = rng.integers(0, 256, n, dtype=np.uint8)
        writer.add_tensor_info(name, shape, np.dtype(np.float32), n, raw_dtype=q)
        listed.append({"name": name, "dims": list(reversed(shape)), "type": q.name, "data": data.tobytes().hex()})
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    if not tensors:
        for f in writer.fout:
            writer.write_padding(f, f.tell())
    for tensor in listed:
        writer.write_tensor_data(np.frombuffer(bytes.fromhex(tensor["data"]), np.uint8))
    writer.close()
    return {"alignment": alignment or 32, "tensors": listed,
            "kvs": [{"key": k, "type": t.name, "elem": e.name if e is not None else t.name, "value": v} for k, t, e, v in kvs]}


def make_types(out):
    lib = ctypes.CDLL(str(Path(llama_cpp.__file__).parent / "lib" / "libggml-base.so"))
    lib.ggml_type_name.restype = ctypes.c_char_p
    lib.ggml_blck_size.restype = ctypes.c_int64
    lib.ggml_type_size.restype = ctypes.c_size_t
    rows = [[t, lib.ggml_type_name(t).decode().upper(), lib.ggml_blck_size(t), lib.ggml_type_size(t)] for t in range(43)]
    (out / "types.json").write_text("[\n" + ",\n".join(json.dumps(r) for r in rows if r[2]) + "\n]\n")


def main():
    out = Path(sys.argv[1])
    out.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(7)
    described = {}
    for name, (alignment, entries, tensors) in FILES.items():
        gguf.gguf_writer.GGUF_VERSION = 2 if name == "version2" else 3
        described[name] = write(out / f"{name}.gguf", alignment, entries, tensors, rng)
        reader = gguf.GGUFReader(out / f"{name}.gguf")
        print(name, len(reader.fields), "fields", len(reader.tensors), "tensors", (out / f"{name}.gguf").stat().st_size, "bytes")
    (out / "files.json").write_text(json.dumps(described, indent=1) + "\n")
    make_types(out)


main()
