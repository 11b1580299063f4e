"""Makes the golden folder of models stored in 8 bits: what transformers and bitsandbytes make of such weights.

usage: make.py OUT_FOLDER

Made with Python 3.11, torch 2.15, transformers 5.23.0, bitsandbytes 0.50.2, safetensors 0.8.0.

Each NAME.safetensors holds weights of the modules q_proj (64, 64) and down_proj (64, 128) as a checkpoint has them; eight.json the
SHA-256 of the float32 values they stand for, and the quantization_config that such a checkpoint carries.
"""
import hashlib
import json
import sys
from pathlib import Path

import bitsandbytes.functional as F
import torch
from safetensors.torch import save_file
from transformers.integrations.finegrained_fp8 import Fp8Dequantize

out = Path(sys.argv[1])
torch.manual_seed(7)
SHAPES = {"q_proj": (64, 64), "down_proj": (64, 128)}
cases = {}


def digest(x):
    assert x.dtype == torch.float32
    return hashlib.sha256(x.contiguous().numpy().tobytes()).hexdigest()


def case(name, config, make):
    tensors, digests = {}, {}
    for module, shape in SHAPES.items():
        parts, values = make(torch.randn(shape))
        tensors |= {f"{module}.{k}": v.clone().contiguous() for k, v in parts.items()}
        digests[module] = digest(values)
    save_file(tensors, out / f"{name}.safetensors")
    cases[name] = dict(config=config, values=digests)


def int8(x):
    q, stats, _ = F.int8_vectorwise_quant(x.half())
    return {"weight": q, "SCB": stats, "weight_format": torch.tensor(0, dtype=torch.uint8)}, F.int8_vectorwise_dequant(q, stats)


def fp8(dtype, rows, cols, name, scale_dtype=torch.float32, flat=False, beside={}):
    """Scales on a grid of tiles of rows × cols; the values are those of transformers' Fp8Dequantize."""

    def make(x):
        m, n = rows or x.shape[0], cols or x.shape[1]
        tiles = x.reshape(x.shape[0] // m, m, x.shape[1] // n, n)
        s = (tiles.abs().amax(dim=(1, 3)) / torch.finfo(dtype).max).to(scale_dtype)
        q = (tiles / s.float()[:, None, :, None]).reshape(x.shape).to(dtype)
        y = Fp8Dequantize(None)._dequantize_one(q, s, torch.float32)
        return {"weight": q, name: s.flatten() if flat else s, **beside}, y

    return make


compressed = lambda strategy, block=None: dict(
    quant_method="compressed-tensors", format="float-quantized",
    config_groups=dict(group_0=dict(targets=["Linear"], weights=dict(num_bits=8, type="float", strategy=strategy, symmetric=True, block_structure=block))),
)
E4, E5 = torch.float8_e4m3fn, torch.float8_e5m2
case("int8", dict(quant_method="bitsandbytes", load_in_8bit=True), int8)
case("block", dict(quant_method="fp8", weight_block_size=[32, 16], activation_scheme="dynamic"), fp8(E4, 32, 16, "weight_scale_inv"))
case("block-bf16", dict(quant_method="fp8", weight_block_size=[16, 64]), fp8(E4, 16, 64, "weight_scale_inv", torch.bfloat16))
case("tensor", compressed("tensor"), fp8(E4, 0, 0, "weight_scale", flat=True, beside={"input_scale": torch.tensor([0.5])}))
case("channel", compressed("channel"), fp8(E4, 1, 0, "weight_scale", torch.bfloat16))
case("compressed-block", compressed("block", [32, 32]), fp8(E4, 32, 32, "weight_scale"))
case("e5m2", dict(quant_method="fp8"), fp8(E5, 0, 0, "weight_scale"))
case("plain", {}, lambda x: ({"weight": (q := x.to(E4))}, q.float()))
(out / "eight.json").write_text(json.dumps(cases, indent=1))
