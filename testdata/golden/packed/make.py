"""Makes the golden folder of models that GPTQ, AWQ and compressed-tensors packed in whole numbers: what their own tools make of
such weights.

usage: make.py OUT_FOLDER AUTOAWQ_SOURCE

Made with Python 3.11, torch 2.15, gptqmodel 7.7.0, autoawq 0.2.9 (only awq/utils/packing_utils.py, read from its source, for
the package needs a GPU's libraries), compressed-tensors 0.20.0, safetensors 0.8.0.

Each NAME.safetensors holds the modules q_proj (64, 64) and down_proj (64, 128) as a checkpoint has them; packed.json the SHA-256
of the float32 values they stand for, and the quantization_config that such a checkpoint carries.
"""
import hashlib
import importlib.util
import json
import sys
from pathlib import Path

import torch
from compressed_tensors.compressors.pack_quantized.base import PackedQuantizationCompressor
from compressed_tensors.quantization import QuantizationArgs, QuantizationScheme
from gptqmodel.nn_modules.qlinear.torch import TorchLinear
from gptqmodel.utils.model_dequant import _correct_gptq_v1_qzeros, _revert_gptq_v1_qzeros_correction
from safetensors.torch import save_file

out = Path(sys.argv[1])
spec = importlib.util.spec_from_file_location("packing_utils", Path(sys.argv[2]) / "awq/utils/packing_utils.py")
awq_utils = importlib.util.module_from_spec(spec)
spec.loader.exec_module(awq_utils)

torch.manual_seed(11)
SHAPES = {"q_proj": (64, 64), "down_proj": (64, 128)}
cases = {}


def digest(x):
    return hashlib.sha256(x.float().contiguous().numpy().tobytes()).hexdigest()


def case(name, config, make):
    tensors, digests = {}, {}
    for module, shape in SHAPES.items():
        parts, values = make(*shape)
        assert values.shape == shape
        tensors |= {f"{module}.{k}": v.clone().contiguous() for k, v in parts.items()}
        digests[module] = digest(values)
    save_file(tensors, out / f"{name}.safetensors")
    cases[name] = dict(config=config, values=digests)


def words(*shape):
    return torch.randint(-(2**31), 2**31, shape, dtype=torch.int64).to(torch.int32)


def gptq(bits, group, v2=False, shuffled=False, bias=False, dtype=torch.float16):
    def make(rows, cols):
        size = group if group > 0 else cols
        layer = TorchLinear(bits=bits, group_size=group, sym=False, desc_act=shuffled, in_features=cols, out_features=rows, bias=False)
        groups = cols // size
        scales = (torch.rand(rows, groups) * 0.01 + 0.001).to(dtype)
        zeros = torch.randint(1, 2**bits, (rows, groups)).to(dtype)
        g_idx = torch.arange(cols, dtype=torch.int32) // size
        if shuffled:
            g_idx = g_idx[torch.randperm(cols)]
        codes = torch.randint(0, 2**bits, (rows, cols))
        linear = torch.nn.Linear(cols, rows, bias=False)
        linear.weight.data = (codes - zeros.float()[:, g_idx]) * scales.float()[:, g_idx]
        layer.pack_original(linear, scales.float(), zeros.float(), g_idx)
        layer.scales = layer.scales.to(dtype)
        layer.post_init()
        values = layer.dequantize_weight().T
        stored = layer.qzeros if v2 else _revert_gptq_v1_qzeros_correction(layer.qzeros.clone(), bits)
        if not v2:
            assert torch.equal(_correct_gptq_v1_qzeros(stored.clone(), bits), layer.qzeros)
        parts = {"qweight": layer.qweight, "qzeros": stored, "scales": layer.scales, "g_idx": g_idx}
        if bias:  # of zeros, as AutoGPTQ saves it for layers without one
            parts["bias"] = torch.zeros(rows, dtype=torch.float16)
        return parts, values

    return make


def awq(group):
    def make(rows, cols):
        qweight, qzeros = words(cols, rows // 8), words(cols // group, rows // 8)
        scales = (torch.rand(cols // group, rows) * 0.01 + 0.001).half()
        return {"qweight": qweight, "qzeros": qzeros, "scales": scales}, awq_utils.dequantize_gemm(qweight, qzeros, scales, 4, group).T

    return make


def compressed(bits, symmetric=True, group=32, dtype=torch.bfloat16):
    args = QuantizationArgs(num_bits=bits, type="int", symmetric=symmetric, strategy="group" if group else "channel", group_size=group or None)
    scheme = QuantizationScheme(targets=["Linear"], weights=args)
    config = dict(quant_method="compressed-tensors", format="pack-quantized", config_groups=dict(group_0=dict(targets=["Linear"], weights=json.loads(args.model_dump_json()))))

    def make(rows, cols):
        size = group or cols
        scale = (torch.rand(rows, cols // size) * 0.01 + 0.001).to(dtype)
        state = {"weight": (torch.randn(rows, cols) * 0.02).to(dtype), "weight_scale": scale}
        if not symmetric:
            state["weight_zero_point"] = torch.randint(-(2 ** (bits - 1)), 2 ** (bits - 1), scale.shape).to(torch.int8)
        parts = PackedQuantizationCompressor.compress(state, scheme)
        return parts, PackedQuantizationCompressor.decompress(parts, scheme)["weight"]

    return config, make


g = lambda bits, group, **kw: dict(quant_method="gptq", bits=bits, group_size=group, sym=False, desc_act=False, **kw)
case("gptq", g(4, 32), gptq(4, 32, bias=True))
case("gptq-shuffled", g(4, 32) | dict(desc_act=True), gptq(4, 32, shuffled=True))
case("gptq-rows", g(4, -1), gptq(4, -1))
case("gptq-8", g(8, 64), gptq(8, 64))
case("gptq-2", g(2, 32), gptq(2, 32, dtype=torch.bfloat16))
case("gptq-v2", g(4, 64, checkpoint_format="gptq_v2"), gptq(4, 64, v2=True))
case("awq", dict(quant_method="awq", bits=4, group_size=32, zero_point=True, version="gemm"), awq(32))
case("int4", *compressed(4))
case("int4-asymmetric", *compressed(4, symmetric=False))
case("int4-channel", *compressed(4, group=0, dtype=torch.float16))
case("int8", *compressed(8, symmetric=False))
(out / "packed.json").write_text(json.dumps(cases, indent=1))
