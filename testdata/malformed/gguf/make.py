"""Damaged and unusual files for package gguf.

usage: make.py OUT_FOLDER

Made with the standard library only, to the layout of version 3; llama-cpp-python 0.3.36 (ggml 0.25.3)
judged each file with gguf_init_from_file.

  NAME.bin       a file
  expected.txt   a line each: NAME, our verdict (ok, format or unsupported), ggml's (ok or error), and
                 words that our message must contain ("-" for none)
"""
import ctypes
import struct
import sys
from pathlib import Path

import llama_cpp

U8, I8, U16, I16, U32, I32, F32, BOOL, STRING, ARRAY, U64, I64, F64 = range(13)


def string(s, n=None):
    s = s if isinstance(s, bytes) else s.encode()
    return struct.pack("<Q", len(s) if n is None else n) + s


def kv(key, t, value):
    return string(key) + struct.pack("<I", t) + value


def array(t, n, values=b""):
    return struct.pack("<IQ", t, n) + values


def u32(v):
    return struct.pack("<I", v)


def u16(v):
    return struct.pack("<H", v)


def tensor(name, dims, t, offset, n_dims=None):
    return string(name) + u32(len(dims) if n_dims is None else n_dims) + struct.pack(f"<{len(dims)}Q", *dims) + struct.pack("<IQ", t, offset)


def file(kvs=(), tensors=(), data=b"", n_kvs=None, n_tensors=None, version=3, magic=b"GGUF", align=32):
    b = magic + struct.pack("<IQQ", version, len(tensors) if n_tensors is None else n_tensors, len(kvs) if n_kvs is None else n_kvs)
    b += b"".join(kvs) + b"".join(tensors)
    if tensors:
        b += bytes(-len(b) % align)
    return b + data


X = tensor("x", [4], 0, 0)  # F32, 16 bytes
D = bytes(32)
KV = kv("k", U32, u32(1))

CASES = [
    # name, our verdict, words, file
    ("empty_file", "format", "cut short", b""),
    ("magic_only", "format", "cut short", b"GGUF"),
    ("magic_wrong", "format", "begins with", file(magic=b"GGML")),
    ("magic_lower_case", "format", "begins with", file(magic=b"gguf")),
    ("version_0", "format", "version 0", file(version=0)),
    ("version_1", "unsupported", "version 1 ", file(version=1)),
    ("version_2", "ok", "-", file([KV], [X], D, version=2)),
    ("version_4", "unsupported", "version 4 ", file(version=4)),
    ("big_endian", "unsupported", "big-endian", b"GGUF" + struct.pack(">IQQ", 3, 0, 0)),
    ("header_only", "ok", "-", file()),
    ("counts_missing", "format", "cut short", file()[:12]),
    ("tensor_count_huge", "format", "tensors cannot be", file(n_tensors=2**63)),
    ("tensor_count_too_many", "format", "follow each other", file([], [X, tensor("y" * 40, [4], 0, 32)], D, n_tensors=4)),
    ("kv_count_huge", "format", "metadata entries cannot be", file(n_kvs=2**62)),
    ("kv_count_too_many", "format", "cut short", file([kv("k" * 40, STRING, string("v" * 40))], n_kvs=2)),
    ("key_empty", "format", "empty key", file([kv("", U32, u32(1))])),
    ("key_twice", "format", "there twice", file([KV, KV])),
    ("key_past_end", "format", "bytes of a string cannot be", file([string("k", 1000) + u32(U32) + u32(1)])),
    ("key_length_all_ones", "format", "bytes of a string cannot be", file([string("k", 2**64 - 1) + u32(U32) + u32(1)])),
    ("value_type_unknown", "format", "unknown value type 13", file([kv("k", 13, u32(1))])),
    ("value_cut", "format", "cut short", file([kv("k", U64, u32(1))])),
    ("string_past_end", "format", "bytes of a string cannot be", file([kv("k", STRING, string("value", 6))])),
    ("string_empty", "ok", "-", file([kv("k", STRING, string(""))])),
    ("string_not_utf8", "ok", "-", file([kv("k", STRING, string(b"\xff\x00\xfe"))])),
    ("bool_two", "ok", "-", file([kv("k", BOOL, b"\x02")])),
    ("array_empty", "ok", "-", file([kv("k", ARRAY, array(STRING, 0))])),
    ("array_of_arrays", "format", "array of arrays", file([kv("k", ARRAY, array(ARRAY, 1, array(U8, 1, b"a")))])),
    ("array_type_unknown", "format", "array elements 13", file([kv("k", ARRAY, array(13, 1, b"a"))])),
    ("array_past_end", "format", "elements of an array cannot be", file([kv("k", ARRAY, array(U32, 3, bytes(8)))])),
    ("array_count_huge", "format", "elements of an array cannot be", file([kv("k", ARRAY, array(U8, 2**64 - 1))])),
    ("array_count_overflow", "format", "elements of an array cannot be", file([kv("k", ARRAY, array(U64, 2**61, bytes(8)))])),
    ("array_string_past_end", "format", "bytes of a string cannot be", file([kv("k", ARRAY, array(STRING, 2, string("a") + string("b", 2)))])),
    ("alignment_zero", "format", "power of two", file([kv("general.alignment", U32, u32(0))])),
    ("alignment_48", "format", "power of two", file([kv("general.alignment", U32, u32(48))])),
    ("alignment_u64", "format", "want uint32", file([kv("general.alignment", U64, struct.pack("<Q", 32))])),
    ("alignment_1", "ok", "-", file([kv("general.alignment", U32, u32(1))], [tensor("x", [3], 24, 0), tensor("y", [1], 0, 3)], bytes(7), align=1)),
    ("alignment_huge", "format", "cut short", file([kv("general.alignment", U32, u32(2**31))], [X], D)),
    ("tensor_name_63", "ok", "-", file([], [tensor("n" * 63, [4], 0, 0)], D)),
    ("tensor_name_64", "format", "64 bytes", file([], [tensor("n" * 64, [4], 0, 0)], D)),
    ("tensor_name_twice", "format", "there twice", file([], [X, tensor("x", [4], 0, 32)], D + D)),
    ("tensor_5_dims", "format", "5 dimensions", file([], [tensor("x", [1] * 5, 0, 0)], D)),
    ("tensor_dims_huge", "format", "4294967295 dimensions", file([], [tensor("x", [1], 0, 0, n_dims=2**32 - 1)], D)),
    ("tensor_0_dims", "ok", "-", file([], [tensor("x", [], 0, 0)], D)),
    ("tensor_dim_negative", "format", "negative", file([], [tensor("x", [2**64 - 4], 0, 0)], D)),
    ("tensor_dims_overflow", "format", "overflow", file([], [tensor("x", [2**32, 2**31], 0, 0)], D)),
    ("tensor_bytes_overflow", "format", "overflow", file([], [tensor("x", [2**62], 0, 0)], D)),
    ("tensor_sum_overflow", "format", "larger than any", file([], [tensor("x", [2**61 - 64], 0, 0), tensor("y", [4], 0, 2**63 - 256)], D)),
    ("tensor_rows_not_blocks", "format", "whole blocks of 32", file([], [tensor("x", [33, 32], 2, 0)], D)),
    ("tensor_type_retired", "unsupported", "type 4", file([], [tensor("x", [32], 4, 0)], D)),
    ("tensor_type_unknown", "unsupported", "type 999", file([], [tensor("x", [32], 999, 0)], D)),
    ("tensor_info_cut", "format", "cut short", file([], [X[:-1]])[:-1]),
    ("offset_first_not_zero", "format", "follow each other", file([], [tensor("x", [4], 0, 32)], D + D)),
    ("offset_gap", "format", "follow each other", file([], [X, tensor("y", [4], 0, 64)], D + D + D)),
    ("offset_overlap", "format", "follow each other", file([], [X, tensor("y", [4], 0, 0)], D + D)),
    ("offset_not_padded", "format", "follow each other", file([], [X, tensor("y", [4], 0, 16)], D + D)),
    ("offset_any_order", "format", "follow each other", file([], [tensor("y", [4], 0, 32), X], D + D)),
    ("data_short", "format", "cut short", file([], [X], bytes(15))),
    ("data_without_last_padding", "ok", "-", file([], [X], bytes(16))),
    ("data_long", "ok", "-", file([], [X], D + D)),
    ("data_none", "format", "cut short", file([], [X])),
    ("split_of_one", "ok", "-", file([kv("split.no", U16, u16(0)), kv("split.count", U16, u16(1)), kv("split.tensors.count", I32, u32(1))], [X], D)),
    ("split_count_zero", "format", "part 1 of 0", file([kv("split.count", U16, u16(0))], [X], D)),
    ("split_no_past_count", "format", "part 3 of 2", file([kv("split.no", U16, u16(2)), kv("split.count", U16, u16(2))], [X], D)),
    ("split_no_u32", "format", "it is uint32, want uint16", file([kv("split.no", U32, u32(0)), kv("split.count", U16, u16(2))], [X], D)),
    ("split_count_string", "format", "it is string, want uint16", file([kv("split.count", STRING, string("2"))], [X], D)),
    ("split_tensors_negative", "format", "with -1 tensors", file([kv("split.no", U16, u16(0)), kv("split.count", U16, u16(2)), kv("split.tensors.count", I32, u32(2**32 - 1))], [X], D)),
    ("split_name", "format", "must be called NAME-00001-of-00002.gguf", file([kv("split.no", U16, u16(0)), kv("split.count", U16, u16(2)), kv("split.tensors.count", I32, u32(2))], [X], D)),
]


class Params(ctypes.Structure):
    _fields_ = [("no_alloc", ctypes.c_bool), ("ctx", ctypes.c_void_p)]


def judge(path):
    """ggml's verdict on the header, and on the extent of the data as llama.cpp's loader checks it."""
    lib = ctypes.CDLL(str(Path(llama_cpp.__file__).parent / "lib" / "libggml-base.so"))
    lib.gguf_init_from_file.restype = ctypes.c_void_p
    lib.gguf_init_from_file.argtypes = [ctypes.c_char_p, Params]
    for f in ("gguf_get_data_offset", "gguf_get_tensor_offset", "gguf_get_tensor_size"):
        getattr(lib, f).restype = ctypes.c_size_t
        getattr(lib, f).argtypes = [ctypes.c_void_p, ctypes.c_int64]
    lib.gguf_get_n_tensors.restype = ctypes.c_int64
    lib.gguf_get_n_tensors.argtypes = [ctypes.c_void_p]
    ctx = lib.gguf_init_from_file(str(path).encode(), Params(True, None))
    if not ctx:
        return "error"
    for i in range(lib.gguf_get_n_tensors(ctx)):
        end = lib.gguf_get_data_offset(ctx, 0) + lib.gguf_get_tensor_offset(ctx, i) + lib.gguf_get_tensor_size(ctx, i)
        if end > path.stat().st_size:
            return "error"
    return "ok"


def main():
    out = Path(sys.argv[1])
    out.mkdir(parents=True, exist_ok=True)
    if len(sys.argv) > 2:  # one file, in a process of its own: ggml aborts on some
        print(judge(out / sys.argv[2]))
        return
    import subprocess

    lines = []
    for name, ours, words, data in CASES:
        (out / f"{name}.bin").write_bytes(data)
        run = subprocess.run([sys.executable, __file__, str(out), f"{name}.bin"], capture_output=True, text=True)
        verdict = run.stdout.strip() if run.returncode == 0 else "error"
        lines.append(f"{name}\t{ours}\t{verdict}\t{words}")
        if (ours == "ok") != (verdict == "ok"):
            print("differs from ggml:", name, run.returncode)
    (out / "expected.txt").write_text("\n".join(lines) + "\n")


main()
