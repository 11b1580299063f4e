"""Runs what Graft makes of every variant in the program it is for, and compares with PEFT's own logits.

usage: runtimes.py GRAFT [MLX_PYTHON]

Prints a table: a variant a line, a form a column; a cell is the largest difference of a logit from PEFT's, in float32, or "refused". Exit 1
where one passes 1e-3, or where a refusal names no way around. ggml computes GELU by a table of 16 bits, so for Gemma in llama.cpp PEFT is run with the same rounding.
Needs what make.py was made with, and llama-cpp-python 0.3.36,
onnxruntime 1.32.0; MLX_PYTHON is a Python with mlx 0.32 and mlx-lm (they want another transformers).
"""
import json
import shutil
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path

import llama_cpp
import numpy as np
import onnxruntime
import torch
from peft import PeftModel
from safetensors.numpy import load_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE / "../../gradient"))
from make import build_any  # noqa: E402

warnings.simplefilter("ignore")
graft = str(Path(sys.argv[1]).resolve())
mlx = sys.argv[2] if len(sys.argv) > 2 else None
golden = json.loads((HERE / "matrix.json").read_text())
LOGITS = load_file(HERE / "logits.safetensors")
work = Path(tempfile.mkdtemp())
LIMIT = 1e-3
MLX = """
import json, sys
from pathlib import Path
import mlx.core as mx, numpy as np
from mlx_lm.utils import load_model
from mlx_lm.tuner.utils import load_adapters
mx.set_default_device(mx.cpu)
for base, adapter, ids in json.load(sys.stdin):
    try:
        m = load_adapters(load_model(Path(base))[0], adapter)
        m.eval()
        print(json.dumps(np.array(m(mx.array([ids])).astype(mx.float32))[0, -4:].tolist()))
    except Exception as e:
        print(json.dumps(repr(e)))
"""


class Refused(Exception):
    pass


def run(*args):
    p = subprocess.run([graft, *map(str, args)], capture_output=True, text=True)
    if p.returncode:
        raise Refused(p.stderr.strip().splitlines()[-1])


def write_base(name):
    folder = work / name
    model = build_any(golden["bases"][name])
    model.save_pretrained(folder)
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocab = ["<unk>", "<s>", "</s>", *alphabet, "ab", "<|endoftext|>"]  # llama.cpp's phi3 wants the last
    vocab += [f"<{i}>" for i in range(len(vocab), golden["bases"][name]["vocab_size"])]
    t = Tokenizer(models.BPE(vocab={v: i for i, v in enumerate(vocab)}, merges=[("a", "b")]))
    t.pre_tokenizer, t.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    if name == "gemma3":  # MLX-LM reads the keys of transformers 4
        path = folder / "config.json"
        old = {k: golden["bases"][name][k] for k in ("rope_theta", "rope_local_base_freq", "rope_scaling")}
        path.write_text(json.dumps(json.loads(path.read_text()) | old | dict(sliding_window_pattern=6)))
    PreTrainedTokenizerFast(tokenizer_object=t, bos_token="<s>", eos_token="</s>", unk_token="<unk>").save_pretrained(folder)
    run("convert", folder, "-o", f"{folder}.gguf", "--no-verify")
    run("convert", folder, "-o", f"{folder}-onnx", "--to", "onnx", "--no-verify", "--slots", "table,head,dora")
    return folder


def gelu16(x):
    """ggml's GELU on a CPU, a table over 16 bits."""
    return torch.nn.functional.gelu(x.half().float(), approximate="tanh").half().float()


def peft(base, adapter, ids, table=False):
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    if adapter:
        model = PeftModel.from_pretrained(model, adapter)
    for m in model.modules():
        if table and hasattr(m, "act_fn"):
            m.act_fn.forward = gelu16
    with torch.no_grad():
        return model.eval()(torch.tensor([ids])).logits[0, -4:].numpy()


def llama(path, lora, ids):
    m = llama_cpp.Llama(str(path), n_ctx=64, logits_all=True, verbose=False, type_k=0, type_v=0, lora_path=lora and str(lora))
    m.eval(ids)
    out = np.array(m.scores[len(ids) - 4 : len(ids)])
    m.close()
    return out


def onnx(bundle, name, ids):
    options = onnxruntime.RunOptions()
    adapter = onnxruntime.LoraAdapter()
    adapter.Load(str(bundle / "adapters" / f"{name}.onnx_adapter"))
    options.add_active_adapter(adapter)
    s = onnxruntime.InferenceSession(str(bundle / "model.onnx"))
    feeds = {"input_ids": np.array([ids]), "attention_mask": np.ones((1, len(ids)), np.int64)}
    for i in s.get_inputs():
        if i.name.startswith("past_key_values"):
            feeds[i.name] = np.zeros((1, i.shape[1], 0, i.shape[3]), np.float32)
    return s.run(["logits"], feeds, options)[0][0, -4:]


def cells(name, base, ids):
    """The columns of a variant: names and functions that give logits."""
    adapter, out = HERE / name, work / f"v-{name}"

    def to_gguf():
        run("adapter", "convert", adapter, "--base", base, "-o", f"{out}.gguf")
        return llama(f"{base}.gguf", f"{out}.gguf", ids)

    def from_gguf():
        if not Path(f"{out}.gguf").exists():
            run("adapter", "convert", adapter, "--base", base, "-o", f"{out}.gguf")
        run("adapter", "convert", f"{out}.gguf", "--base", f"{base}.gguf", "-o", f"{out}-back")
        return peft(base, f"{out}-back", ids)

    def to_peft():
        run("adapter", "convert", adapter, "--base", base, "-o", f"{out}-again")
        return peft(base, f"{out}-again", ids)

    def to_onnx():
        bundle = Path(f"{base}-onnx")
        run("adapter", "add", bundle, f"{name}={adapter}", "--base", base)
        return onnx(bundle, name, ids)

    def to_mlx():
        run("adapter", "convert", adapter, "--base", base, "--to", "mlx", "-o", f"{out}-mlx")
        p = subprocess.run([mlx, "-c", MLX], input=json.dumps([[str(base), f"{out}-mlx", ids]]), capture_output=True, text=True)
        got = json.loads(p.stdout or json.dumps(p.stderr[-300:]))
        if isinstance(got, str):
            raise RuntimeError(got)
        return np.array(got)

    def hf():
        run("merge", base, adapter, "-o", f"{out}-hf")
        return peft(f"{out}-hf", None, ids)

    def gguf():
        run("merge", base, adapter, "-o", f"{out}-merged.gguf")
        return llama(f"{out}-merged.gguf", None, ids)

    table = {"PEFT → PEFT": to_peft, "PEFT → GGUF": to_gguf, "GGUF → PEFT": from_gguf, "PEFT → ONNX": to_onnx,
             "merge to HF": hf, "merge to GGUF": gguf}
    return table | ({"PEFT → MLX": to_mlx} if mlx else {})


bases, failed = {}, 0
print("| variant | " + " | ".join(cells("", "", [])) + " |")
for name, v in golden["variants"].items():
    base = bases.setdefault(v["base"], None) or write_base(v["base"])
    bases[v["base"]] = base
    line = []
    for column, compute in cells(name, base, v["tokens"]).items():
        try:
            want = LOGITS[name]
            if v["base"] == "gemma3" and column in ("PEFT → GGUF", "merge to GGUF"):
                want = peft(base, HERE / name, v["tokens"], table=True)
            d = float(np.abs(compute() - want).max())
            line.append(f"{d:.0e}")
            if not d < LIMIT:
                failed += 1
                line[-1] += " FAILED"
        except Refused as e:
            line.append("refused")
            if not any(way in str(e) for way in ("graft merge", "--approximate", "unmerged")):
                failed += 1
                line[-1] += f" WITHOUT A WAY: {e}"
        except Exception as e:
            failed += 1
            line.append(f"FAILED: {e!r:.200}")
    print(f"| {name} | " + " | ".join(line) + " |", flush=True)
shutil.rmtree(work)
sys.exit(failed > 0)
