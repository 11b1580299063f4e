"""Trains LoRA on quantized GGUF files and runs the adapters in llama.cpp on the very same files.

    ggufbase.py MODEL.gguf [MODEL.gguf…] --data ROWS.json|TEXT.txt [--steps 60] [--length 256] [--batch 4] [--windows 8]

Each model is trained as it is stored, its adapter converted to GGUF (`graft adapter convert`), and a held-out tenth of the text
scored in windows of LENGTH tokens by Graft and by llama-cpp-python, without the adapter and with it. llama.cpp rounds activations
to 8 bits beside quantized weights, so its figures part from Graft's, which does not, by what that costs; the last columns are by how
much, and which part of Graft's gain llama.cpp has. Fails where a loss does not fall, where they part by more than
--tolerance (1e-2), or where less than nine tenths of the gain are kept. Rows are a list of objects with instruction and output.
Needs bin/graft (make build), and llama-cpp-python in the Python that runs it.
"""
import argparse
import json
import pathlib
import sys
import tempfile

import numpy as np

import common
from common import GRAFT, Failed, run

try:
    import llama_cpp
except ImportError as e:
    sys.exit(f"ggufbase: llama-cpp-python is not installed in {sys.executable}: {e}")

p = argparse.ArgumentParser(description=__doc__.split("\n")[0])
p.add_argument("models", nargs="+", type=pathlib.Path)
p.add_argument("--data", required=True, type=pathlib.Path)
p.add_argument("--steps", type=int, default=60)
p.add_argument("--length", type=int, default=256)
p.add_argument("--batch", type=int, default=4)
p.add_argument("--windows", type=int, default=8)
p.add_argument("--tolerance", type=float, default=1e-2)
p.add_argument("--set", action="append", default=[], help="further KEY=VALUE of the recipe")
p.add_argument("--json", type=pathlib.Path, help="where to put the figures")
a = p.parse_args()


def divided(work):
    """Writes the text to train on and the text held out."""
    text = a.data.read_text()
    if a.data.suffix == ".json":
        text = "".join(f"Instruction: {r['instruction']}\n{r.get('input', '')}\nAnswer: {r['output']}\n\n" for r in json.loads(text))
    cut = text.index("\n", len(text) * 9 // 10) + 1
    for name, part in ("train.txt", text[:cut]), ("held.txt", text[cut:]):
        (work / name).write_text(part)
    return work / "train.txt", work / "held.txt"


def graft_nll(model, held, adapter=None):
    args = [GRAFT, "eval", "perplexity", model, "--text", held, "--context", a.length, "--max-tokens", a.windows * a.length, "--json"]
    out, _ = run(args + (["--adapter", adapter] if adapter else []))
    return json.loads(out)["nll"]


def llama_nll(model, held, adapter=None):
    """The same windows of the same tokens; keys and values in float32, as Graft has them."""
    llm = llama_cpp.Llama(str(model), lora_path=str(adapter) if adapter else None, n_ctx=a.length, n_batch=a.length, n_ubatch=a.length,
                          n_threads=common.THREADS, n_threads_batch=common.THREADS, logits_all=True, type_k=0, type_v=0, verbose=False)
    ids = llm.tokenize(held.read_bytes(), add_bos=False, special=False)[: a.windows * a.length]
    total, count = 0.0, 0
    for lo in range(0, len(ids) - 1, a.length):
        window = ids[lo : lo + a.length]
        llm.reset()
        llm.eval(window)
        z = np.array(llm.scores[: len(window) - 1], dtype=np.float64)
        top = z.max(axis=1, keepdims=True)
        total += (np.log(np.exp(z - top).sum(axis=1)) + top[:, 0] - z[np.arange(len(z)), window[1:]]).sum()
        count += len(window) - 1
    llm.close()
    return total / count


def measure(model, work):
    train, held = divided(work)
    out, lora = work / model.stem, work / (model.stem + "-lora.gguf")
    sets = ["packing=stream", f"max_length={a.length}", f"batch_size={a.batch}", f"max_steps={a.steps}", "r=16", "learning_rate=2e-4", "shuffle=true"]
    _, peak = run([GRAFT, "train", "--model", model, "--data", train, "-o", out] + [x for s in sets + a.set for x in ("--set", s)])
    losses = [json.loads(line)["loss"] for line in (out / "metrics.jsonl").read_text().splitlines()]
    run([GRAFT, "adapter", "convert", out, "--base", model, "-o", lora])
    few = max(1, len(losses) // 5)
    return dict(model=model.name, peak_mb=round(peak), first=float(np.mean(losses[:few])), last=float(np.mean(losses[-few:])),
                base=graft_nll(model, held), tuned=graft_nll(model, held, out), gguf=graft_nll(model, held, lora),
                llama_base=llama_nll(model, held), llama_tuned=llama_nll(model, held, lora))


def failures(r):
    if not r["last"] < r["first"]:
        yield f"the loss went from {r['first']:.4f} to {r['last']:.4f}"
    if abs(r["gguf"] - r["tuned"]) > 1e-5:
        yield f"the converted adapter scores {r['gguf']:.6f}, the adapter {r['tuned']:.6f}"
    if not abs(r["llama_tuned"] - r["tuned"]) <= a.tolerance:
        yield f"llama.cpp scores {r['llama_tuned']:.4f} with the adapter, Graft {r['tuned']:.4f}"
    if not r["tuned"] < r["base"] or not r["llama_base"] - r["llama_tuned"] >= 0.9 * (r["base"] - r["tuned"]):
        yield f"the held-out gain is {r['base'] - r['tuned']:.4f} in Graft and {r['llama_base'] - r['llama_tuned']:.4f} in llama.cpp"


results = []
with tempfile.TemporaryDirectory() as folder:
    for model in a.models:
        try:
            results.append(measure(model.resolve(), pathlib.Path(folder)))
        except Failed as e:
            sys.exit(f"ggufbase: {e}")
rows = [["model", "training loss", "Graft: base", "adapter", "llama.cpp: base", "adapter", "apart", "gain kept"]]
for r in results:
    gain = r["base"] - r["tuned"]
    rows.append([r["model"], f"{r['first']:.3f} → {r['last']:.3f}", f"{r['base']:.4f}", f"{r['tuned']:.4f}", f"{r['llama_base']:.4f}", f"{r['llama_tuned']:.4f}",
                 f"{abs(r['llama_tuned'] - r['tuned']):.4f}", f"{(r['llama_base'] - r['llama_tuned']) / gain:.0%}"])
common.table(rows)
if a.json:
    a.json.write_text(json.dumps(results, indent=2) + "\n")
wrong = [f"{r['model']}: {text}" for r in results for text in failures(r)]
if wrong:
    sys.exit("ggufbase: " + "\nggufbase: ".join(wrong))
