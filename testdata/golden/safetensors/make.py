"""Goldens of package safetensors: files of the reference writer, and shards of transformers.

usage: make.py OUT_FOLDER

Made with safetensors 0.8.0, numpy 2.4.6, huggingface_hub and transformers 5.23.0 with torch 2.15.0.

  NAME.safetensors   what safetensors.serialize writes
  files.json         what each of them holds: tensors (name, dtype, shape, hex data) in an order
                     that is not the file's, and the metadata
  sharded/           a tiny random llama saved by save_pretrained with a small max_shard_size
  shards.json        for sharded/: the limit and the tensors in the order of the state dict;
                     and plans of huggingface_hub for made-up tensors, with the index that
                     transformers' way of writing JSON gives
"""
import json
import sys
from pathlib import Path

import numpy as np
import torch
from huggingface_hub.serialization._base import split_state_dict_into_shards_factory
from safetensors import safe_open
from safetensors._safetensors_rust import TensorSpec, serialize
from transformers import LlamaConfig, LlamaForCausalLM

# The serializer's names of the dtypes that it writes, by their names in a header, with bits per element.
DTYPES = {
    "BOOL": ("bool", 8), "F4": ("float4_e2m1fn_x2", 4), "U8": ("uint8", 8), "I8": ("int8", 8),
    "F8_E5M2": ("float8_e5m2", 8), "F8_E4M3": ("float8_e4m3fn", 8), "F8_E8M0": ("float8_e8m0fnu", 8),
    "F8_E4M3FNUZ": ("float8_e4m3fnuz", 8), "F8_E5M2FNUZ": ("float8_e5m2fnuz", 8),
    "I16": ("int16", 16), "U16": ("uint16", 16), "F16": ("float16", 16), "BF16": ("bfloat16", 16),
    "I32": ("int32", 32), "U32": ("uint32", 32), "F32": ("float32", 32),
    "C64": ("complex64", 64), "F64": ("float64", 64), "I64": ("int64", 64), "U64": ("uint64", 64),
}

FILES = {
    "empty": ([], None),
    "order": ([("z", "U8", [2]), ("b", "F32", [2]), ("a", "I64", [1]), ("c", "F16", [3])], {"format": "pt"}),
    "dtypes": ([(d.lower(), d, [3, 2]) for d in DTYPES], None),
    "shapes": ([("scalar", "F32", []), ("none", "F32", [0, 4]), ("middle", "F32", [2, 0, 3]), ("one", "BF16", [1, 1, 1, 1, 1]),
                ("none.u8", "U8", [0]), ("row", "U8", [5])], {}),
    "names": ([("", "U8", [1]), ('quote"back\\slash', "U8", [1]), ("tab\tline\nfeed\f\b\r", "U8", [1]), ("\x00\x1f\x7f", "U8", [1]),
               ("<a>&'", "U8", [1]), ("größe.重み.🦙", "U8", [1]), ("\u2028\u2029\ufeff\u00a0", "U8", [1]), ("a/b", "U8", [1]),
               ("layers.10", "U8", [1]), ("layers.9", "U8", [1]), ("Z", "U8", [1]), ("_", "U8", [1])],
              {"größe\n": "über \"\\ 🦙\u2028"}),
}


def make_files(out):
    rng = np.random.default_rng(7)
    described = {}
    for name, (tensors, metadata) in FILES.items():
        specs, listed, keep = {}, [], []
        for tensor, dtype, shape in tensors:
            code, bits = DTYPES[dtype]
            n = int(np.prod(shape, dtype=np.int64)) * bits // 8
            data = rng.integers(0, 2 if dtype == "BOOL" else 256, n, dtype=np.uint8)
            keep.append(data)
            # The serializer doubles the last dimension of the packed dtype.
            storage = shape if dtype != "F4" else shape[:-1] + [shape[-1] // 2]
            specs[tensor] = TensorSpec(dtype=code, shape=storage, data_ptr=data.ctypes.data, data_len=n)
            listed.append({"name": tensor, "dtype": dtype, "shape": shape, "data": data.tobytes().hex()})
        (out / f"{name}.safetensors").write_bytes(serialize(specs, metadata))
        described[name] = {"metadata": metadata, "tensors": listed}
    (out / "files.json").write_text(json.dumps(described, indent=1) + "\n")


def index(total_parameters, total_size, weight_map):
    """The index as transformers' save_pretrained writes it."""
    both = {"metadata": {"total_parameters": total_parameters, "total_size": total_size}, "weight_map": weight_map}
    return json.dumps(both, indent=2, sort_keys=True) + "\n"


def make_shards(out):
    torch.manual_seed(7)
    model = LlamaForCausalLM(LlamaConfig(vocab_size=24, hidden_size=8, intermediate_size=12, num_hidden_layers=2,
                                         num_attention_heads=2, num_key_value_heads=1, tie_word_embeddings=False))
    limit = 2000
    model.save_pretrained(out / "sharded", max_shard_size=limit)
    for extra in ("config.json", "generation_config.json"):
        (out / "sharded" / extra).unlink()
    state = model.state_dict()
    saved = {"limit": limit, "tensors": [[n, list(t.shape)] for n, t in state.items()]}

    sizes = [6, 11, 6, 2, 6, 10, 2, 2, 0, 11, 3, 10]
    names = [f"{i:02d}" for i in range(len(sizes))]
    names[2], names[5], names[7] = 'größe "重み"', "🦙\x7f\n\x1b", "a\\b/c"
    plans = []
    for limit in (1, 6, 10, 11, 1000):
        split = split_state_dict_into_shards_factory(dict(zip(names, sizes)), get_storage_size=lambda n: n,
                                                     filename_pattern="model{suffix}.safetensors", max_shard_size=limit)
        text = index(sum(sizes), split.metadata["total_size"], split.tensor_to_filename) if split.is_sharded else ""
        plans.append({"limit": limit, "names": names, "sizes": sizes, "files": split.filename_to_tensors, "index": text})
    (out / "shards.json").write_text(json.dumps({"sharded": saved, "plans": plans}, indent=1) + "\n")


def main():
    out = Path(sys.argv[1])
    out.mkdir(parents=True, exist_ok=True)
    make_files(out)
    make_shards(out)
    for path in sorted(out.rglob("*.safetensors")):
        with safe_open(path, "np") as f:
            print(path.name, len(f.keys()), "tensors", path.stat().st_size, "bytes")


main()
