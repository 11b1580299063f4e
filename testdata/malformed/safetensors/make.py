"""Damaged and unusual files for package safetensors.

usage: make.py OUT_FOLDER

Made with safetensors 0.8.0, which also judged each file.

  NAME.bin       a file
  expected.txt   a line each: NAME, our verdict (ok or format), the reference's (ok or error),
                 and words that our message must contain ("-" for none)

A verdict that differs from the reference's is deliberate: the written specification forbids
what the reference lets pass.
"""
import json
import struct
import sys
from pathlib import Path

import safetensors


def st(header, data=b"", n=None):
    header = header if isinstance(header, bytes) else header.encode()
    return struct.pack("<Q", len(header) if n is None else n) + header + data


def entry(dtype, shape, begin, end, **extra):
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end], **extra}


def of(data=b"", **tensors):
    return st(json.dumps(tensors, separators=(",", ":")), data)


X = '"x":{"dtype":"U8","shape":[2],"data_offsets":[0,2]}'
BIG = 2**63

CASES = [
    # name, our verdict, words, file
    ("empty_file", "format", "too short", b""),
    ("seven_bytes", "format", "too short", b"\x02\0\0\0\0\0\0"),
    ("header_over_limit", "format", "limit", st("{}", n=100_000_001)),
    ("header_length_all_ones", "format", "limit", st("{}", n=2**64 - 1)),
    ("header_past_end", "format", "cut short", st("{}", n=3)),
    ("header_length_zero", "format", "begin with", st("")),
    ("header_not_utf8", "format", "UTF-8", st(b'{"\xff":{"dtype":"U8","shape":[0],"data_offsets":[0,0]}}')),
    ("header_surrogate", "format", "header", st('{"\\ud800":{"dtype":"U8","shape":[0],"data_offsets":[0,0]}}')),
    ("header_bom", "format", "begin with", st(b"\xef\xbb\xbf{}")),
    ("header_padded_with_nul", "format", "follows its object", st(b"{}\0\0\0\0\0\0")),
    ("header_trailing_text", "format", "follows its object", st("{}x")),
    ("header_trailing_object", "format", "follows its object", st("{}{}")),
    ("header_array", "format", "begin with", st("[]")),
    ("header_cut", "format", "header", st("{" + X)),
    ("header_trailing_comma", "format", "header", st("{" + X + ",}", b"ab")),
    ("leading_spaces", "format", "begin with", st("  {" + X + "}", b"ab")),
    ("trailing_white_space", "ok", "-", st("{" + X + "}\n\t \r", b"ab")),
    ("length_not_multiple_of_8", "ok", "-", st("{" + X + "}", b"ab")),
    ("inner_white_space", "ok", "-", st(json.dumps({"x": entry("U8", [2], 0, 2)}, indent=2), b"ab")),
    ("no_tensors", "ok", "-", st("{}")),
    ("no_tensors_leftover", "format", "1 bytes follow", st("{}", b"a")),
    ("first_not_at_zero", "format", "follow each other", of(b"abc", x=entry("U8", [2], 1, 3))),
    ("hole", "format", "follow each other", of(b"abcde", x=entry("U8", [2], 0, 2), y=entry("U8", [2], 3, 5))),
    ("overlap", "format", "follow each other", of(b"abc", x=entry("U8", [2], 0, 2), y=entry("U8", [2], 1, 3))),
    ("same_bytes_twice", "format", "follow each other", of(b"ab", x=entry("U8", [2], 0, 2), y=entry("U8", [2], 0, 2))),
    ("end_before_begin", "format", "follow each other", of(b"ab", x=entry("U8", [2], 0, 2), y=entry("U8", [0], 2, 1))),
    ("data_short", "format", "cut short", of(b"a", x=entry("U8", [2], 0, 2))),
    ("data_long", "format", "follow the last", of(b"abc", x=entry("U8", [2], 0, 2))),
    ("size_not_shape", "format", "takes 3", of(b"ab", x=entry("U8", [3], 0, 2))),
    ("shape_overflow", "format", "overflows", of(b"", x=entry("U8", [2**32, 2**32], 0, 0))),
    ("shape_overflow_to_small", "format", "overflows", of(b"ab", x=entry("U8", [2**63 - 1, 2, 2], 0, 2))),
    ("bits_overflow", "format", "overflows", of(b"", x=entry("F64", [2**58], 0, 0))),
    ("shape_overflow_times_zero", "format", "overflows", of(b"", x=entry("U8", [2**62, 2**62, 0], 0, 0))),
    ("f4_half_byte", "format", "whole bytes", of(b"ab", x=entry("F4", [3], 0, 2))),
    ("f4", "ok", "-", of(b"ab", x=entry("F4", [4], 0, 2))),
    ("f6", "ok", "-", of(b"abcdef", x=entry("F6_E2M3", [4], 0, 3), y=entry("F6_E3M2", [2, 2], 3, 6))),
    ("f6_partial_byte", "format", "whole bytes", of(b"ab", x=entry("F6_E2M3", [2], 0, 2))),
    ("scalar", "ok", "-", of(b"abcd", x=entry("F32", [], 0, 4))),
    ("zero_elements_in_the_middle", "ok", "-", of(b"abcd", x=entry("U8", [2], 0, 2), y=entry("F32", [3, 0], 2, 2), z=entry("U8", [2], 2, 4))),
    ("any_order", "ok", "-", of(b"abcd", x=entry("U8", [2], 2, 4), y=entry("U8", [2], 0, 2))),
    ("unknown_field", "ok", "-", of(b"ab", x=entry("U8", [2], 0, 2, extra={"deep": [1, None]}))),
    ("empty_name", "ok", "-", of(b"ab", **{"": entry("U8", [2], 0, 2)})),
    ("metadata_null", "ok", "-", st('{"__metadata__":null,' + X + "}", b"ab")),
    ("metadata_last", "ok", "-", st("{" + X + ',"__metadata__":{"a":"b"}}', b"ab")),
    ("metadata_number", "format", "string", st('{"__metadata__":{"a":1}}')),
    ("metadata_nested", "format", "string", st('{"__metadata__":{"a":{}}}')),
    ("metadata_array", "format", "object", st('{"__metadata__":[]}')),
    ("metadata_twice", "format", "duplicate", st('{"__metadata__":{},"__metadata__":{}}')),
    ("metadata_key_twice", "format", "duplicate", st('{"__metadata__":{"a":"1","a":"2"}}')),
    ("no_dtype", "format", "no dtype", st('{"x":{"shape":[2],"data_offsets":[0,2]}}', b"ab")),
    ("no_shape", "format", "no shape", st('{"x":{"dtype":"U8","data_offsets":[0,2]}}', b"ab")),
    ("no_offsets", "format", "no data_offsets", st('{"x":{"dtype":"U8","shape":[2]}}', b"ab")),
    ("one_offset", "format", "two numbers", st('{"x":{"dtype":"U8","shape":[2],"data_offsets":[0]}}', b"ab")),
    ("three_offsets", "format", "two numbers", st('{"x":{"dtype":"U8","shape":[2],"data_offsets":[0,2,2]}}', b"ab")),
    ("field_twice", "format", "duplicate", st('{"x":{"dtype":"U8","dtype":"U8","shape":[2],"data_offsets":[0,2]}}', b"ab")),
    ("unknown_dtype", "format", "unknown dtype", of(b"ab", x=entry("U4", [2], 0, 2))),
    ("dtype_lower_case", "format", "unknown dtype", of(b"ab", x=entry("u8", [2], 0, 2))),
    ("dtype_number", "format", "string", of(b"ab", x=entry(8, [2], 0, 2))),
    ("shape_negative", "format", "-2", of(b"ab", x=entry("U8", [-2], 0, 2))),
    ("shape_float", "format", "2.0", of(b"ab", x=entry("U8", [2.0], 0, 2))),
    ("shape_exponent", "format", "2e0", st('{"x":{"dtype":"U8","shape":[2e0],"data_offsets":[0,2]}}', b"ab")),
    ("shape_string", "format", '"2"', of(b"ab", x=entry("U8", ["2"], 0, 2))),
    ("shape_null", "format", "array", of(b"ab", x=entry("U8", None, 0, 2))),
    ("shape_too_large", "format", "63-bit", of(b"", x=entry("U8", [2**64], 0, 0))),
    ("offset_negative", "format", "-1", of(b"ab", x=entry("U8", [2], -1, 2))),
    ("offset_float", "format", "2.0", of(b"ab", x=entry("U8", [2], 0, 2.0))),
    ("offset_too_large", "format", "63-bit", of(b"ab", x=entry("U8", [2], 0, BIG))),
    ("entry_null", "format", "object", st('{"x":null}')),
    ("entry_array", "format", "object", st('{"x":["U8",[2],[0,2]]}', b"ab")),
    ("name_twice", "format", "duplicate", st("{" + X + "," + X + "}", b"ab")),
    ("name_twice_escaped", "format", "duplicate", st("{" + X + "," + X.replace("x", "\\u0078") + "}", b"ab")),
    ("deep_nesting", "format", "header", st('{"x":{"extra":' + "[" * 20000)),
]


def main():
    out = Path(sys.argv[1])
    out.mkdir(parents=True, exist_ok=True)
    lines = []
    for name, ours, words, data in CASES:
        (out / f"{name}.bin").write_bytes(data)
        try:
            safetensors.deserialize(data)
            reference = "ok"
        except safetensors.SafetensorError:
            reference = "error"
        lines.append(f"{name}\t{ours}\t{reference}\t{words}")
        if (ours == "ok") != (reference == "ok"):
            print("differs from the reference:", name)
    (out / "expected.txt").write_text("\n".join(lines) + "\n")


main()
