"""Every mix of llama-quantize by Graft and by llama.cpp on one model: the types and bytes of all tensors must be equal.

    mixes.py MODEL.gguf [--imatrix FILE.gguf] [--source FOLDER] [MIX …]

MODEL is what llama_model_quantize reads, of F32, F16 or BF16; --source is the same model for Graft, where it is to read the
Hugging Face folder that MODEL was made from. It needs bin/graft (make build), gguf and llama-cpp-python, prints a line a mix
with the seconds of either side, and exits with 1 where anything differs.
"""
import argparse
import ctypes
import pathlib
import sys
import tempfile
import time

import llama_cpp
import numpy as np
from common import GRAFT, THREADS, run
from gguf import GGUFReader

FILE_TYPES = dict(
    q4_0=2, q4_1=3, q8_0=7, q5_0=8, q5_1=9, q2_k=10, q3_k_s=11, q3_k_m=12, q3_k_l=13, q4_k_s=14, q4_k_m=15, q5_k_s=16, q5_k_m=17, q6_k=18,
    iq4_nl=25, iq4_xs=30,
)
p = argparse.ArgumentParser()
p.add_argument("model")
p.add_argument("mixes", nargs="*", default=list(FILE_TYPES))
p.add_argument("--imatrix")
p.add_argument("--source")
a = p.parse_intermixed_args()


def means(path):
    """The means that llama-quantize makes of an importance matrix."""
    tensors = {t.name: np.array(t.data, dtype=np.float32).reshape(-1) for t in GGUFReader(path).tensors}
    names = [n.removesuffix(".in_sum2") for n in tensors if n.endswith(".in_sum2")]
    return [(n.encode(), tensors[n + ".in_sum2"] / tensors[n + ".counts"][0]) for n in names]


IMPORTANCE = means(a.imatrix) if a.imatrix else []


def llamacpp(mix, out):
    o = llama_cpp.llama_model_quantize_default_params()
    o.ftype, o.nthread = FILE_TYPES[mix], THREADS
    rows = (llama_cpp.llama_model_imatrix_data * (len(IMPORTANCE) + 1))()
    for r, (name, mean) in zip(rows, IMPORTANCE):
        r.name, r.data, r.size = name, mean.ctypes.data_as(ctypes.POINTER(ctypes.c_float)), len(mean)
    if IMPORTANCE:
        o.imatrix = ctypes.cast(rows, ctypes.POINTER(llama_cpp.llama_model_imatrix_data))
    assert llama_cpp.llama_model_quantize(a.model.encode(), str(out).encode(), ctypes.byref(o)) == 0


def graft(mix, out):
    more = ["--imatrix", pathlib.Path(a.imatrix).resolve()] if a.imatrix else []
    run([GRAFT, "quantize", pathlib.Path(a.source or a.model).resolve(), "-o", out, "--type", mix, "--no-verify", "--force", *more])


def timed(work, mix, out):
    start = time.time()
    work(mix, out)
    return time.time() - start


failed = False
quiet = llama_cpp.llama_log_callback(lambda *_: None)  # kept as long as it may be called
llama_cpp.llama_log_set(quiet, None)
with tempfile.TemporaryDirectory() as tmp:
    for mix in a.mixes:
        theirs, ours = pathlib.Path(tmp, "a.gguf"), pathlib.Path(tmp, "b.gguf")
        seconds = timed(llamacpp, mix, theirs), timed(graft, mix, ours)
        want, got = ({t.name: t for t in GGUFReader(f).tensors} for f in (theirs, ours))
        bad = [n for n in want.keys() | got.keys()
               if n not in want or n not in got or want[n].tensor_type != got[n].tensor_type or want[n].data.tobytes() != got[n].data.tobytes()]
        failed |= bool(bad)
        print(f"{mix}: {len(want)} tensors, {len(bad)} differ {sorted(bad)[:5]}; llama.cpp {seconds[0]:.2f} s, Graft {seconds[1]:.2f} s", flush=True)
sys.exit(failed)
