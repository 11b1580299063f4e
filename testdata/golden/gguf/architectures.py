"""Checks every architecture through `graft convert`: transformers → GGUF → llama.cpp, and back.

usage: architectures.py GRAFT [LLAMA_CPP] [-k NAME] [--golden] [graft's options...]

GRAFT is the command. LLAMA_CPP, where given, is the source of llama.cpp as llama-cpp-python 0.3.36 vendors it (its conversion/
and gguf-py/), whose converter is run on the same folder. Made for torch 2.15.0, transformers 5.23.0, tokenizers 0.23.2,
llama-cpp-python 0.3.36, gguf 0.19.0, safetensors 0.8.0.

For every configuration of internal/testmodel/configs.json: the model is made by transformers with the weights of the other
goldens and saved by it; converted to a GGUF file of F32, which llama.cpp loads and runs on tokens; converted back to a folder,
which transformers loads. Printed are the largest differences of logits from transformers' (llama.cpp's must be below 1e-3,
those of the folder that came back 0), the tensors that came back changed (none), and the keys of config.json whose meaning
changed (none). Against llama.cpp's converter: keys of the architecture that it writes and graft does not, or with another
value or type, and tensors whose bytes differ (none).

ggml computes GELU by a table of 16 bits, so for Gemma transformers is run with the same rounding; the difference without it
is printed too.

With --golden, architectures.json is written: by configuration, the keys (type, value) and tensors (dims in ggml's order) of the
converter's files.

Where llama.cpp departs from transformers the sequence is kept within the range in which they agree: no longer than the window of
mistral, qwen2, smollm3 and phi3, which it does not have. longrope's factors go by the context there and by the sequence here:
each is tested where both choose the same set.
"""
import importlib.util
import json
import math
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
from safetensors import safe_open
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import AutoConfig, AutoModelForCausalLM, Gemma3Config, Gemma3ForConditionalGeneration, PreTrainedTokenizerFast, logging

HERE = Path(__file__).resolve().parent
spec = importlib.util.spec_from_file_location("gradient", HERE / "../gradient/make.py")
gradient = importlib.util.module_from_spec(spec)
spec.loader.exec_module(gradient)
logging.set_verbosity_error()

WINDOWLESS = ("mistral", "qwen2", "smollm3", "phi3")  # in llama.cpp
DEAD = ("transformers_version", "_name_or_path", "use_cache", "architectures", "dtype", "torch_dtype", "initializer_range", "tokenizer_class",
        "attention_dropout", "resid_pdrop", "embd_pdrop", "pretraining_tp", "rope_theta", "rope_local_base_freq", "_sliding_window_pattern",
        "sliding_window_pattern", "no_rope_layer_interval", "original_max_position_embeddings", "partial_rotary_factor")


def tokenizer():
    """The 300 tokens of internal/testmodel: three special ones, the bytes, and merges."""
    chars = sorted(pre_tokenizers.ByteLevel.alphabet())
    specials = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    vocab = {t: i for i, t in enumerate(specials + chars)}
    merges = []
    for a, b in [(a, b) for a in "etaoinsh" for b in "etaoinsh"]:
        if len(vocab) < 300:
            vocab[a + b] = len(vocab)
            merges.append((a, b))
    tok = Tokenizer(models.BPE(vocab, merges))
    tok.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)])
    tok.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=tok, bos_token=specials[1], eos_token=specials[2], unk_token=specials[0])


def cases(configs):
    for name, cfg in configs.items():
        yield name, cfg, 64
        if "long_factor" in str(cfg):
            yield name + " (short factors)", cfg | dict(original_max_position_embeddings=512, max_position_embeddings=1024), 64
    text = {k: v for k, v in configs["gemma3"].items() if k != "architectures"}
    yield "gemma3 of several parts", dict(model_type="gemma3", text_config=text | dict(tie_word_embeddings=True)), 64


def build(cfg):
    if cfg["model_type"] != "gemma3":
        return gradient.build_any(cfg)
    vision = dict(hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2, image_size=28, patch_size=14)
    c = Gemma3Config(text_config=cfg["text_config"], vision_config=vision, mm_tokens_per_image=4, attn_implementation="eager",
                     image_token_index=299, boi_token_index=298, eoi_token_index=297)
    model = Gemma3ForConditionalGeneration._from_config(c, attn_implementation="eager").float()
    for n, p in model.named_parameters():
        gradient.fill(n, p, offset=1)
    return model


def gelu16(x):
    """ggml's GELU on a CPU, a table over 16 bits."""
    return torch.nn.functional.gelu(x.half().float(), approximate="tanh").half().float()


def logits_of(model, ids):
    with torch.no_grad():
        return model.eval()(input_ids=torch.tensor([ids])).logits[0].numpy()


def llama_logits(path, ids, context):
    import llama_cpp

    llm = llama_cpp.Llama(model_path=str(path), n_ctx=context, n_batch=context, n_threads=1, logits_all=True, verbose=False,
                         type_k=0, type_v=0, flash_attn=False)  # F32 everywhere
    llm.eval(ids)
    return np.array(llm.scores[: len(ids)])


def tensors_of(folder):
    out = {}
    for path in sorted(Path(folder).glob("*.safetensors")):
        with safe_open(path, "pt") as f:
            out |= {k: f.get_tensor(k) for k in f.keys()}
    return out


def derived(config, r):
    """Parameters of positions with what follows from the others where it is absent."""
    r = {k: v for k, v in r.items() if k != "type"}
    kind, factor = r.get("rope_type"), r.get("factor")
    if kind == "yarn":
        return dict(attention_factor=0.1 * math.log(factor) + 1, beta_fast=32.0, beta_slow=1.0) | r
    if kind == "longrope":
        n = r["original_max_position_embeddings"]
        follows = math.sqrt(1 + math.log(factor or config.max_position_embeddings / n) / math.log(n))
        return dict(attention_factor=follows) | {k: v for k, v in r.items() if k != "factor"}
    return r


def meaning(config):
    """A configuration without what no computation depends on; biases and windows that are absent are off."""
    d = {k: v for k, v in config.to_dict().items() if k not in DEAD}
    if not d.get("use_sliding_window", True):
        d["max_window_layers"] = None
    r = d.get("rope_parameters") or {}
    if "full_attention" in r:
        d["rope_parameters"] = {k: derived(config, v) for k, v in r.items()}
    elif r:
        d["rope_parameters"] = derived(config, r)
    return {k: v for k, v in d.items() if v not in (None, False)}


def changed(a, b):
    """The keys that differ. Numbers that GGUF holds in 32 bits are equal where those are."""
    return sorted(k for k in a.keys() | b.keys() if a.get(k) != b.get(k) and not (isinstance(a.get(k), float) and np.float32(a[k]) == np.float32(b.get(k, 0))))


def reference(llama, folder, out):
    """llama.cpp's converter on a folder, its tokenizer left out (it knows only published ones)."""
    code = f"""
import sys
sys.path[:0] = [{str(llama)!r} + "/gguf-py", {str(llama)!r}]
import gguf, pathlib, json
from conversion import ModelBase, get_model_class, ModelType
from conversion.base import TextModel
dir = pathlib.Path({str(folder)!r})
arch = json.load(open(dir / "config.json"))["architectures"][0]
cls = get_model_class(arch)
cls.set_vocab = lambda self: self.gguf_writer.add_tokenizer_model("none")
cls(dir, gguf.LlamaFileType.ALL_F32, pathlib.Path({str(out)!r})).write()
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    if done.returncode:
        return (done.stderr.strip().splitlines() or ["?"])[-1][:90]


def against(ours, theirs):
    """What the converter's file has that ours lacks or has otherwise, but for names and the tokenizer."""
    from gguf import GGUFReader

    a, b, out = GGUFReader(str(ours)), GGUFReader(str(theirs)), []
    arch = bytes(b.fields["general.architecture"].parts[-1]).decode()
    for k, f in b.fields.items():
        if k != "general.architecture" and not k.startswith(arch + "."):
            continue
        g = a.fields.get(k)
        if g is None or g.types != f.types or any(not np.array_equal(g.parts[i], f.parts[j]) for i, j in zip(g.data, f.data)):
            out.append(k)
    have = {t.name: t for t in a.tensors}
    for t in b.tensors:
        u = have.pop(t.name, None)
        if u is None or u.tensor_type != t.tensor_type or u.data.tobytes() != t.data.tobytes():
            out.append(t.name)
    return out + [f"+{n}" for n in have]


def described(path):
    """A file's keys of the architecture and its tensors."""
    from gguf import GGUFReader

    f = GGUFReader(str(path))
    arch = bytes(f.fields["general.architecture"].parts[-1]).decode()
    keys = {k: [v.types[0].name.lower(), v.contents()] for k, v in f.fields.items() if k == "general.architecture" or k.startswith(arch + ".")}
    return dict(keys=keys, tensors={t.name: [int(d) for d in t.shape] for t in f.tensors})


def check(graft, llama, options, name, cfg, context, dir, golden):
    hf, gguf, back = dir / "hf", dir / "m.gguf", dir / "back"
    model = build(cfg)
    model.save_pretrained(hf)
    tokenizer().save_pretrained(hf)
    text = cfg.get("text_config", cfg)
    n = 40
    if cfg["model_type"] in WINDOWLESS and text.get("sliding_window") and text.get("use_sliding_window", True):
        n = min(n, text["sliding_window"])
    ids = gradient.tokens("architectures." + name, n, text["vocab_size"])
    want = logits_of(model, ids)
    run = lambda a, b: subprocess.run([graft, "convert", str(a), "-o", str(b), *options], capture_output=True, text=True)
    done = run(hf, gguf)
    if done.returncode:
        return "GGUF: " + done.stderr.strip()
    got = llama_logits(gguf, ids, context)
    theirs, note = np.abs(got - want).max(), ""
    if "gemma" in cfg["model_type"]:
        note = f" ({theirs:.2g} with a GELU of 32 bits)"
        for m in model.modules():
            if hasattr(m, "act_fn"):
                m.act_fn.forward = gelu16
        theirs = np.abs(got - logits_of(model, ids)).max()
    done = run(gguf, back)
    if done.returncode:
        return "back: " + done.stderr.strip()
    a, b = tensors_of(hf), tensors_of(back)
    if cfg["model_type"] == "gemma3":
        inner = lambda k: k.replace("model.language_model.", "model.").replace("language_model.model.", "model.")
        a = {inner(k): v for k, v in a.items() if "language_model" in k}
    lost = [k for k in a.keys() | b.keys() if k not in a or k not in b or a[k].dtype != b[k].dtype or not torch.equal(a[k], b[k])]
    again, info = AutoModelForCausalLM.from_pretrained(back, attn_implementation="eager", output_loading_info=True)
    problems = [k for k, v in info.items() if v]
    ours = np.abs(logits_of(again, ids) - want).max()
    config = AutoConfig.from_pretrained(hf)
    keys = changed(meaning(config.get_text_config()), meaning(again.config))
    figures = f"{n:6d} {np.abs(want).max():9.3f} {theirs:12.2g} {ours:12.2g} {len(lost):8d}  {' '.join(keys + problems) or '-'}{note}"
    if llama:
        other = dir / "reference.gguf"
        failed = reference(llama, hf, other)
        figures += f"  {failed or ' '.join(against(gguf, other)) or '-'}"
        if not failed:
            golden[name] = described(other)
    ok = theirs < 1e-3 and ours == 0 and not lost and not problems
    return figures + ("" if ok else "  FAILED")


if __name__ == "__main__":
    torch.set_num_threads(1)
    args = sys.argv[2:]
    llama = args.pop(0) if args and not args[0].startswith("-") else None
    only = None
    if "-k" in args:
        i = args.index("-k")
        only, args = args[i + 1], args[:i] + args[i + 2 :]
    write = "--golden" in args
    args = [a for a in args if a != "--golden"]
    golden = {}
    configs = json.loads((HERE / "../../../internal/testmodel/configs.json").read_text())
    print(f"{'model':28s} tokens  |logits|    llama.cpp         back  changed  config  converter")
    for name, cfg, context in cases(configs):
        if only and only not in name:
            continue
        with tempfile.TemporaryDirectory() as dir:
            print(f"{name:28s}", check(sys.argv[1], llama, args, name, cfg, context, Path(dir), golden), flush=True)
    if write:
        lines = [f"{json.dumps(k)}: {json.dumps(v)}" for k, v in golden.items() if k in configs]
        (HERE / "architectures.json").write_text("{\n" + ",\n".join(lines) + "\n}\n")
