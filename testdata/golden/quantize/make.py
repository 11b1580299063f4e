"""Makes the golden files of package quantize.

usage: make.py OUT_FOLDER                        writes bnb4.json, mean.json, ggml.json, alone.json, blocks.json, mixes.json,
                                                 whole.json, config.json
       make.py OUT.safetensors IN.safetensors    quantizes every 2-D *proj.weight of IN (nf4, double), for TestRealCheckpoint

Made with Python 3.11, bitsandbytes 0.50.2 (CPU, x86-64), torch 2.15, gguf 0.19.0, numpy 2.4.6,
safetensors 0.8.0, transformers 5.23.0, llama-cpp-python 0.3.36 (its libggml is 0.25.3, built without fused multiply-add).

Inputs are not stored: both sides make them with the same integer generator (golden_test.go). Outputs are stored whole where
they are short, and by their SHA-256 always.
"""
import hashlib
import json
import struct
import sys
from pathlib import Path

import numpy as np

MASK = (1 << 64) - 1


def bits(seed, n):
    """n 32-bit words: the upper halves of splitmix64's outputs."""
    i = np.arange(1, n + 1, dtype=np.uint64)
    with np.errstate(over="ignore"):
        z = np.uint64(seed) + i * np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        z = z ^ (z >> np.uint64(31))
    return (z >> np.uint64(32)).astype(np.uint32)


def values(seed, n, kind):
    """n float32 values; every kind is exact in float32, "half" in float16 and bfloat16 too."""
    if kind in ("bell", "outliers", "positive", "flat"):  # sums of three words
        m = (bits(seed, 3 * n) & 0xFFFFFF).astype(np.int64).reshape(n, 3).sum(axis=1) - 3 * (1 << 23)
        x = (m.astype(np.float64) * 2.0**-24).astype(np.float32)
        if kind == "outliers":
            x[::97] *= 64
        if kind == "positive":
            x = np.abs(x)
        if kind == "flat":  # runs of 48 the same
            x = x[np.arange(n) // 48 * 48]
        return x
    w = bits(seed, n)
    if kind == "half":  # 8 bits of mantissa, 8 binades
        m = (w & 255).astype(np.int64) - 128
        return (m.astype(np.float64) * 2.0 ** -(7 + ((w >> 8) & 7).astype(np.float64))).astype(np.float32)
    m = (w & 0xFFFFFF).astype(np.int64) - (1 << 23)
    e = ((w >> 24) & 7).astype(np.float64)
    x = m.astype(np.float64) * 2.0 ** -(23 + e)
    if kind == "tiny":  # denormals among them
        x = x * 2.0**-125
    if kind == "small":
        x = x * 2.0**-100
    if kind == "huge":
        x = x * 2.0**120
    x = x.astype(np.float32)
    if kind == "zeros":  # two of three runs of 96 are zero
        x[(np.arange(n) // 96) % 3 != 0] = 0
    if kind == "ties":  # half the values lie on thresholds of the block whose scale is 1
        x = np.clip(x, -1, 1)
        x[::64] = 1
        t = np.array(thresholds(), dtype=np.float32)
        x[1::2] = t[(w[1::2] >> 3) % len(t)]
    return x


def thresholds():
    from bitsandbytes.backends.default.ops import _get_4bit_quantize_bounds
    import torch

    out = []
    for t in ("nf4", "fp4"):
        out += _get_4bit_quantize_bounds(t, torch.device("cpu"))[0].tolist()
    return out


def digest(b):
    d = {"sha256": hashlib.sha256(b).hexdigest()}
    if len(b) <= 160:
        d["hex"] = b.hex()
    return d


def bnb4(out):
    import bitsandbytes.functional as F
    import torch

    cases = []

    def case(shape, kind="plain", type="nf4", blocksize=64, double=True, dtype="float32"):
        n = int(np.prod(shape))
        seed = 1000 + len(cases)
        x = values(seed, n, kind)
        w = torch.from_numpy(x).to(getattr(torch, dtype)).reshape(shape)
        assert torch.equal(w.float().flatten(), torch.from_numpy(x)), "the input is not exact in " + dtype
        q, s = F.quantize_4bit(w, quant_type=type, blocksize=blocksize, compress_statistics=double)
        saved = {"": q, **s.as_dict(packed=True)}
        c = dict(seed=seed, kind=kind, shape=list(shape), type=type, blocksize=blocksize, double=double, dtype=dtype, saved=[])
        for name, t in saved.items():
            b = t.contiguous().numpy().tobytes()
            e = dict(name=name, dtype={torch.uint8: "U8", torch.float32: "F32"}[t.dtype], shape=list(t.shape), **digest(b))
            if "quant_state" in name:
                e["text"] = b.decode()
                del e["sha256"]
                e.pop("hex", None)
            c["saved"].append(e)
        # bitsandbytes' AVX-512 code decodes wrongly where a block crosses rows of a multiple of 16.
        if shape[-1] % blocksize == 0 or shape[-1] % 16:
            # Adding 0 drops the sign of zeros: FP4's code 8 is 0 or -0 by code path.
            y = F.dequantize_4bit(q, s).float().numpy() + np.float32(0)
            c["decoded"] = hashlib.sha256(y.tobytes()).hexdigest()
        cases.append(c)

    for type in ("nf4", "fp4"):
        for double in (True, False):
            for dtype in ("float32", "bfloat16", "float16"):
                case((48, 128), "half", type, 64, double, dtype)
            case((32, 192), "plain", type, 64, double)
            case((7, 13), "plain", type, 64, double)
            case((33, 95), "plain", type, 64, double)
            case((33, 96), "plain", type, 64, double)
            case((5, 1), "plain", type, 64, double)
            case((1, 1), "plain", type, 64, double)
            case((1, 65), "plain", type, 64, double)
            case((3, 5, 7), "plain", type, 64, double)
            case((130,), "plain", type, 64, double)
            case((24, 128), "zeros", type, 64, double)
            case((8, 64), "ties", type, 64, double)
            case((24, 128), "tiny", type, 64, double)
            case((24, 128), "huge", type, 64, double)
            for blocksize in (32, 128, 256, 512, 1024, 2048, 4096):
                case((16, 384), "plain", type, blocksize, double)
                case((3, 1001), "plain", type, blocksize, double)
    for n in range(1, 70):  # tails, and few scales
        case((n,), "plain", "nf4", 32, True)
    for shape in ((17, 64 * 64), (40, 64 * 41), (576, 576), (1536, 576), (192, 576), (600, 1100)):
        case(shape)
    # One all-zero tensor, which has an all-zero nested block.
    x = torch.zeros(4, 128)
    q, s = F.quantize_4bit(x, quant_type="nf4", compress_statistics=True)
    zero = {k: v.numpy().tobytes().hex() for k, v in s.as_dict(packed=True).items() if k != "nested_quant_map"}
    zero[""] = q.numpy().tobytes().hex()

    # The 8-bit rounding by itself, densely: blocks of 256 whose scale is 1.
    y = values(77, 1 << 19, "plain")
    y[::256] = 1
    c8, s8 = F.quantize_blockwise(torch.from_numpy(y), blocksize=256)

    # And where it is delicate: 8 numbers on either side of each place where the nearest code changes.
    m = F.create_dynamic_map()
    levels = torch.linspace(-1, 1, 65536, dtype=torch.float64)
    nearest = torch.bucketize(levels.float(), (m[1:] + m[:-1]) / 2)
    steps = (nearest[1:] != nearest[:-1]).nonzero().flatten()
    centers = (2 * (steps.double() + 0.5) / 65535 - 1).float().numpy().view(np.int32)
    centers = centers[centers.view(np.float32) != 0]  # whose neighbours by bits would be NaN
    near = (centers[:, None] + np.arange(-8, 9)[None, :]).astype(np.int32).view(np.float32).flatten()
    near = np.concatenate([[np.float32(1)], near])
    near = torch.from_numpy(near)
    steps8 = []
    for i in range(1, len(near), 255):  # each block starts with a 1
        c, _ = F.quantize_blockwise(torch.cat([near[:1], near[i : i + 255]]), blocksize=256)
        steps8.append(c.numpy()[1:])
    edges = dict(centers=centers.tolist(), **digest(np.concatenate(steps8).tobytes()))
    (out / "bnb4.json").write_text(
        json.dumps(
            dict(
                cases=cases,
                zero=zero,
                blockwise=dict(seed=77, n=len(y), codes=digest(c8.numpy().tobytes()), absmax=digest(s8.absmax.numpy().tobytes())),
                edges=edges,
                thresholds=[struct.unpack("<I", struct.pack("<f", t))[0] for t in thresholds()],
            ),
            indent=0,
        )
    )


def mean(out):
    """torch's mean of n positive numbers with k threads, as float32 bits."""
    import torch

    rows = []
    sizes = list(range(1, 150)) + [257, 511, 1000, 1023, 1024, 2047, 4099, 5184, 8191, 13824, 16384, 20480, 30001, 32767]
    for n in sizes:
        rows.append((n, 1))
    for n in (32768, 32769, 40000, 65535, 65536, 65537, 98305, 131071, 262144, 262151, 300007):
        for k in (1, 2, 3, 4, 5, 8, 9, 16, 33):
            rows.append((n, k))
    got = []
    for n, k in rows:
        torch.set_num_threads(k)
        x = np.abs(values(5, n, "plain"))
        m = torch.from_numpy(x).mean().item()
        got.append([n, k, struct.unpack("<I", struct.pack("<f", m))[0]])
    torch.set_num_threads(1)
    # From 2^24 numbers on runs are longer: 4096 numbers repeated.
    n = (1 << 24) + 77777
    m = torch.from_numpy(np.resize(np.abs(values(5, 4096, "plain")), n)).mean().item()
    tiled = [n, 4096, struct.unpack("<I", struct.pack("<f", m))[0]]
    (out / "mean.json").write_text(json.dumps(dict(seed=5, rows=got, tiled=tiled)))


# Offsets of half-precision numbers in a block: their upper exponent bit is cleared, which keeps them finite.
HALVES = {
    "F16": [0], "BF16": [0], "Q8_0": [0], "Q4_0": [0], "Q4_1": [0, 2], "Q5_0": [0], "Q5_1": [0, 2], "IQ4_NL": [0], "MXFP4": [],
    "Q2_K": [80, 82], "Q3_K": [108], "Q4_K": [0, 2], "Q5_K": [0, 2], "Q6_K": [208], "IQ4_XS": [0],
}


def ggml(out):
    from gguf import GGMLQuantizationType, quants
    from gguf.constants import GGML_QUANT_SIZES

    decode, encode = [], []
    for i, (name, halves) in enumerate(HALVES.items()):
        type = GGMLQuantizationType[name]
        elems, size = GGML_QUANT_SIZES[type]
        blocks = 40 if elems > 1 else 4000
        b = (bits(200 + i, blocks * size) & 255).astype(np.uint8).reshape(blocks, size)
        for h in halves:
            b[:, h + 1] &= 0xBF
        if name == "MXFP4":
            b[:, 0] = np.where(b[:, 0] == 255, 254, b[:, 0])
            b[0, 0], b[1, 0] = 0, 1
        x = quants.dequantize(b, type).astype(np.float32).flatten()
        decode.append(dict(type=name, seed=200 + i, blocks=blocks, block=[elems, size], halves=halves, first=[float(v) for v in x[:4]], **digest(x.tobytes())))
    for i, (name, kind) in enumerate(
        (n, k) for n in ("F32", "F16", "BF16", "Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1") for k in ("plain", "half", "zeros", "small", "huge")
    ):
        x = values(300 + i, 64 * 32, kind)
        x[320:352] = x[320]  # a constant block
        x[352:384] = np.abs(x[352:384])
        with np.errstate(over="ignore"):
            b = quants.quantize(x, GGMLQuantizationType[name])
        encode.append(dict(type=name, kind=kind, seed=300 + i, n=len(x), **digest(b.tobytes())))
    (out / "ggml.json").write_text(json.dumps(dict(decode=decode, encode=encode), indent=0))


# As HALVES, for the types that are read alone; the scale of IQ1_M ends in its last byte.
READ_ALONE = {
    "IQ1_S": [0], "IQ1_M": [54], "IQ2_XXS": [0], "IQ2_XS": [0], "IQ2_S": [0], "IQ3_XXS": [0], "IQ3_S": [0], "TQ1_0": [52], "TQ2_0": [64],
    "NVFP4": [], "Q1_0": [0], "Q2_0": [0],
}


def alone(out):
    """Random blocks as libggml decodes them, and every 8-bit float as torch does."""
    import ctypes

    import llama_cpp
    import torch

    lib = ctypes.CDLL(str(Path(llama_cpp.__file__).parent / "lib" / "libggml-base.so"))
    lib.ggml_blck_size.restype = ctypes.c_int64
    lib.ggml_type_size.restype = ctypes.c_size_t
    lib.ggml_type_name.restype = ctypes.c_char_p
    numbers = {lib.ggml_type_name(i).decode().upper(): i for i in range(43) if lib.ggml_type_name(i)}
    cases = []
    for i, (name, halves) in enumerate(READ_ALONE.items()):
        elems, size = lib.ggml_blck_size(numbers[name]), lib.ggml_type_size(numbers[name])
        blocks = 40
        b = (bits(700 + i, blocks * size) & 255).astype(np.uint8).reshape(blocks, size)
        for h in halves:
            b[:, h + 1] &= 0xBF
        x = np.zeros(blocks * elems, dtype=np.float32)
        getattr(lib, "dequantize_row_" + name.lower())(b.ctypes.data_as(ctypes.c_void_p), x.ctypes.data_as(ctypes.c_void_p), ctypes.c_int64(len(x)))
        cases.append(dict(type=name, seed=700 + i, blocks=blocks, block=[elems, size], halves=halves, first=[float(v) for v in x[:4]], **digest(x.tobytes())))
    every = torch.arange(256, dtype=torch.uint8)
    eights = {}
    for name, dtype in (("F8_E4M3", torch.float8_e4m3fn), ("F8_E5M2", torch.float8_e5m2)):
        x = every.view(dtype).float()
        eights[name] = [None if v != v else v if abs(v) != float("inf") else str(v) for v in x.tolist()]
    (out / "alone.json").write_text(json.dumps(dict(decode=cases, eights=eights), indent=0))


def blocks(out, rows=6):
    """Blocks as libggml itself writes them, without and with the importance of each column."""
    import ctypes

    import llama_cpp
    from gguf import GGMLQuantizationType
    from gguf.constants import GGML_QUANT_SIZES

    lib = ctypes.CDLL(str(Path(llama_cpp.__file__).parent / "lib" / "libggml-base.so"))
    chunk = lib.ggml_quantize_chunk
    chunk.restype = ctypes.c_size_t
    chunk.argtypes = [ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p] + [ctypes.c_int64] * 3 + [ctypes.c_void_p]
    cases, cols = [], 1280
    for name in "Q8_0 Q4_0 Q4_1 Q5_0 Q5_1 IQ4_NL MXFP4 Q2_K Q3_K Q4_K Q5_K Q6_K IQ4_XS".split():
        elems, size = GGML_QUANT_SIZES[GGMLQuantizationType[name]]
        for kind in ("plain", "half", "zeros", "tiny", "small", "huge", "bell", "outliers", "positive", "flat"):
            for importance in ("", "positive", "zeros"):
                seed = 5000 + len(cases)
                x = values(seed, rows * cols, kind)
                y = np.zeros(len(x) // elems * size, dtype=np.uint8)
                w = None
                if importance:
                    w = np.abs(values(seed + 1000, cols, importance))
                chunk(GGMLQuantizationType[name], x.ctypes.data, y.ctypes.data, 0, rows, cols, w.ctypes.data if importance else None)
                cases.append(dict(type=name, kind=kind, importance=importance, seed=seed, rows=rows, cols=cols, **digest(y.tobytes())))
    (out / "blocks.json").write_text(json.dumps(cases, indent=0))


# Models whose tensors the mixes are tried on: architecture, layers, heads of queries and of values, columns, columns of
# ffn_down, whether there is an output.weight, and a block's matrices.
SEPARATE = ["attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down"]
MIXED = [
    ("llama", 32, 8, 2, 256, 512, True, SEPARATE),
    ("llama", 80, 8, 2, 256, 256, False, SEPARATE),
    ("llama", 26, 4, 4, 320, 80, False, SEPARATE),
    ("qwen2", 80, 4, 4, 256, 512, True, SEPARATE),
    ("phi3", 17, 4, 4, 256, 512, True, ["attn_qkv", "attn_output", "ffn_up", "ffn_down"]),
    ("gemma3", 13, 4, 1, 512, 96, False, SEPARATE),
]
FILE_TYPES = dict(
    Q4_0=2, Q4_1=3, Q8_0=7, Q5_0=8, Q5_1=9, Q2_K=10, Q3_K_S=11, Q3_K_M=12, Q3_K_L=13, Q4_K_S=14, Q4_K_M=15, Q5_K_S=16, Q5_K_M=17, Q6_K=18,
    IQ4_NL=25, IQ4_XS=30,
)


def mixes(out):
    """Which type llama_model_quantize gives each tensor of a model; the types of blk.0.…, blk.1.… in the order of the list
    above, after token_embd and, where there is one, output."""
    import ctypes
    import tempfile

    import llama_cpp
    from gguf import GGUFReader, GGUFWriter

    letters = {}
    models = []
    with tempfile.TemporaryDirectory() as tmp:
        for arch, layers, heads, kv, cols, down, untied, block in MIXED:
            names = ["token_embd"] + ["output"] * untied + [f"blk.{i}.{b}" for i in range(layers) for b in block]
            w = GGUFWriter(f"{tmp}/a.gguf", arch)
            for key, v in dict(context_length=64, embedding_length=cols, block_count=layers, feed_forward_length=down, vocab_size=8).items():
                w.add_uint32(f"{arch}.{key}", v)
            w.add_uint32(f"{arch}.attention.head_count", heads)
            w.add_uint32(f"{arch}.attention.head_count_kv", kv)
            w.add_float32(f"{arch}.attention.layer_norm_rms_epsilon", 1e-5)
            w.add_uint32(f"{arch}.attention.sliding_window", 64)
            for n in names:
                w.add_tensor(n + ".weight", np.ones((2, down if n.endswith("ffn_down") else cols), dtype=np.float32))
            w.add_tensor("output_norm.weight", np.ones(cols, dtype=np.float32))
            w.write_header_to_file()
            w.write_kv_data_to_file()
            w.write_tensors_to_file()
            w.close()
            m = dict(arch=arch, layers=layers, heads=heads, kv=kv, cols=cols, down=down, untied=untied, block=block, types={})
            for name, number in FILE_TYPES.items():
                for importance in (False, True):
                    p = llama_cpp.llama_model_quantize_default_params()
                    p.ftype, p.nthread = number, 1
                    if importance:  # of nothing in particular: that there is one counts
                        data = (ctypes.c_float * 1)(1)
                        rows = (llama_cpp.llama_model_imatrix_data * 2)()
                        rows[0].name, rows[0].data, rows[0].size = b"none", data, 1
                        p.imatrix = ctypes.cast(rows, ctypes.POINTER(llama_cpp.llama_model_imatrix_data))
                    assert llama_cpp.llama_model_quantize(f"{tmp}/a.gguf".encode(), f"{tmp}/b.gguf".encode(), ctypes.byref(p)) == 0
                    r = GGUFReader(f"{tmp}/b.gguf")
                    assert r.fields["general.file_type"].contents() == number
                    got = {t.name: t.tensor_type.name for t in r.tensors}
                    assert got["output_norm.weight"] == "F32"
                    m["types"][name + "+" * importance] = "".join(letters.setdefault(got[n + ".weight"], chr(65 + len(letters))) for n in names)
            models.append(m)
    (out / "mixes.json").write_text(json.dumps(dict(letters=letters, file_types=FILE_TYPES, models=models), indent=0))


# A whole model: its tensors, in Hugging Face's order of rows, are values(i, n, "bell") of the i-th name, and the importance
# of columns is |values(100 + i, columns, "positive")|, of half the layers.
WHOLE = dict(layers=8, hidden=256, heads=8, kv=2, ff=512, vocab=300)


def whole(out):
    """Types and bytes of all matrices of a model that llama_model_quantize made, without and with importance."""
    import ctypes
    import tempfile

    import llama_cpp
    from gguf import GGUFReader, GGUFWriter

    w = WHOLE
    h, d = w["hidden"], w["hidden"] // w["heads"]
    shapes = {"attn_q": (h, h), "attn_k": (w["kv"] * d, h), "attn_v": (w["kv"] * d, h), "attn_output": (h, h)}
    shapes |= {"ffn_gate": (w["ff"], h), "ffn_up": (w["ff"], h), "ffn_down": (h, w["ff"])}
    names = [("token_embd.weight", (w["vocab"], h))] + [(f"blk.{i}.{n}.weight", s) for i in range(w["layers"]) for n, s in shapes.items()]
    cases = {}
    with tempfile.TemporaryDirectory() as tmp:
        g = GGUFWriter(f"{tmp}/a.gguf", "llama")
        for key, v in dict(context_length=64, embedding_length=h, block_count=w["layers"], feed_forward_length=w["ff"], vocab_size=w["vocab"]).items():
            g.add_uint32(f"llama.{key}", v)
        g.add_uint32("llama.attention.head_count", w["heads"])
        g.add_uint32("llama.attention.head_count_kv", w["kv"])
        g.add_float32("llama.attention.layer_norm_rms_epsilon", 1e-5)
        entries = []
        for i, (name, shape) in enumerate(names):
            x = values(i, shape[0] * shape[1], "bell").reshape(shape)
            if "attn_q" in name or "attn_k" in name:  # neighbours turn together
                x = x.reshape(-1, 2, d // 2, shape[1]).swapaxes(1, 2).reshape(shape)
            g.add_tensor(name, np.ascontiguousarray(x))
            if name.startswith("blk.") and int(name.split(".")[1]) % 2 == 0:
                entries.append((name, np.abs(values(100 + i, shape[1], "positive"))))
        g.write_header_to_file()
        g.write_kv_data_to_file()
        g.write_tensors_to_file()
        g.close()
        for name in ("Q4_K_M", "Q3_K_M", "Q2_K", "Q5_0", "IQ4_XS"):
            for importance in (False, True):
                p = llama_cpp.llama_model_quantize_default_params()
                p.ftype, p.nthread = FILE_TYPES[name], 2
                if importance:
                    rows = (llama_cpp.llama_model_imatrix_data * (len(entries) + 1))()
                    for r, (n, v) in zip(rows, entries):
                        r.name, r.data, r.size = n.encode(), v.ctypes.data_as(ctypes.POINTER(ctypes.c_float)), len(v)
                    p.imatrix = ctypes.cast(rows, ctypes.POINTER(llama_cpp.llama_model_imatrix_data))
                assert llama_cpp.llama_model_quantize(f"{tmp}/a.gguf".encode(), f"{tmp}/b.gguf".encode(), ctypes.byref(p)) == 0
                got = {t.name: t for t in GGUFReader(f"{tmp}/b.gguf").tensors}
                cases[name + "+" * importance] = [[got[n].tensor_type.name, hashlib.sha256(got[n].data.tobytes()).hexdigest()[:16]] for n, _ in names]
    (out / "whole.json").write_text(json.dumps(dict(model=w, names=[n for n, _ in names], cases=cases), indent=0))


def config(out):
    """quantization_config as transformers writes it, and which modules its skip patterns leave alone."""
    from transformers import BitsAndBytesConfig
    from transformers.quantizers.quantizers_utils import should_convert_module

    names = ["lm_head", "model.lm_head", "model.layers.1.self_attn.q_proj", "model.layers.11.self_attn.q_proj"]
    names += ["model.layers.1.mlp.gate", "model.layers.1.mlp.gate_proj", "xlm_head", "lm_head.inner", "a.b.c"]
    patterns = [["lm_head"], ["model.layers.1"], ["model.layers.*"], ["q_proj"], ["model.layers.1.mlp.gate"], ["mlp.gate"]]
    patterns += [["model.layers.1."], ["a|b"], ["a.b|a"], [r"model\.layers\.\d\.mlp"], [], [""], ["lm_head", "a"]]
    configs = []
    for kw in (
        dict(bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True, bnb_4bit_compute_dtype="bfloat16"),
        dict(bnb_4bit_quant_type="fp4", llm_int8_skip_modules=["lm_head", "model.layers.0"]),
    ):
        c = BitsAndBytesConfig(load_in_4bit=True, **kw).to_dict()
        configs.append(json.dumps(c, sort_keys=True, separators=(",", ":")))
    skips = [dict(patterns=p, quantized=[should_convert_module(n, p) for n in names]) for p in patterns]
    (out / "config.json").write_text(json.dumps(dict(configs=configs, names=names, skips=skips), indent=0))


def checkpoint(out, source):
    import bitsandbytes.functional as F
    import torch
    from safetensors import safe_open
    from safetensors.torch import save_file

    torch.set_num_threads(1)
    tensors = {}
    with safe_open(source, "pt") as f:
        for name in f.keys():
            w = f.get_tensor(name)
            if w.ndim == 2 and name.endswith("proj.weight"):
                tensors[name], s = F.quantize_4bit(w, quant_type="nf4", compress_statistics=True)
                for k, v in s.as_dict(packed=True).items():
                    tensors[f"{name}.{k}"] = v
    save_file(tensors, out)


if len(sys.argv) == 3:
    checkpoint(sys.argv[1], sys.argv[2])
else:
    folder = Path(sys.argv[1])
    config(folder)
    ggml(folder)
    alone(folder)
    blocks(folder)
    mixes(folder)
    whole(folder)
    mean(folder)
    bnb4(folder)
