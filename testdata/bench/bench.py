"""Graft and its peers at the same work, one after the other in each round: medians, ratios, peak memory.

Run it with `make bench`. It prints a table and writes bench.json. The peers run where GRAFT_PEERS names a
folder with train_peft.py (PEFT, PyTorch) and quant_bnb.py (bitsandbytes), each of which prints a line
RESULT; GRAFT_PEERS_PYTHON is the Python that has their packages, transformers' and llama-cpp-python's.
Without it, and where a peer is not installed, the columns of that peer stay empty.

GRAFT_PEERS_CONVERT is llama.cpp's convert_hf_to_gguf.py, GRAFT_PEERS_EXPORT_LORA its llama-export-lora, which no package has.

GRAFT_BENCH_ONLY is a regular expression for the names of rows; `bench.py --list` prints them.
GRAFT_BENCH_ROUNDS (3) and GRAFT_BENCH_STEPS (6) say how long it takes. Needs no package.
"""
import datetime
import json
import os
import pathlib
import re
import shutil
import statistics
import sys
import tempfile
import time
from dataclasses import dataclass

from common import GRAFT, ROOT, THREADS, Failed, figure, number, processor, run, save, table, text, train

HERE = pathlib.Path(__file__).resolve().parent
GGUF = ROOT / "quickstart" / "SmolLM2-135M-Instruct.Q4_1.gguf"
MODEL = ROOT / "quickstart" / "base-f32"  # the same in float32, for both sides
MODEL_GGUF = ROOT / "quickstart" / "base-f32.gguf"  # and for llama.cpp
PROMPT = "Once upon a time"
MODEL_BF16 = ROOT / "quickstart" / "base-bf16"
PEERS = os.environ.get("GRAFT_PEERS")
CONVERT = os.environ.get("GRAFT_PEERS_CONVERT")
EXPORT_LORA = os.environ.get("GRAFT_PEERS_EXPORT_LORA")
PYTHON = os.environ.get("GRAFT_PEERS_PYTHON", sys.executable)
ROUNDS = int(os.environ.get("GRAFT_BENCH_ROUNDS", "3"))
STEPS = max(2, int(os.environ.get("GRAFT_BENCH_STEPS", "6")))
ONLY = re.compile(os.environ.get("GRAFT_BENCH_ONLY", ""), re.IGNORECASE)
SEQUENCES, LENGTH, SCORED, GENERATED = 4, 256, 512, 200


# What is measured: functions of the folder for scratch that return figures and the peak in MB, or None for it.

def graft_train(method, compute):
    def measure(work):
        steps, peak = train(MODEL, work / "text.txt", work / "run", method, compute, STEPS, SEQUENCES, LENGTH)
        # The first step pays for what the others reuse, on either side.
        return [statistics.median(s["tokens_per_second"] for s in steps[1:])], peak
    return measure


def torch_train(mode, *more):
    def measure(work):
        out, peak = run([PYTHON, f"{PEERS}/train_peft.py", "--model", MODEL, "--mode", mode, "--text", work / "text.txt",
                         "--steps", STEPS, "--bs", SEQUENCES, "--seq", LENGTH, "--threads", THREADS, *more])
        return [figure(out, r"RESULT.* tok/s ([\d.]+)")], peak
    return measure


def llamacpp(kind, *more):
    def measure(work):
        out, peak = run([PYTHON, HERE / "peer_llamacpp.py", kind, MODEL_GGUF, work / "text.txt", "--threads", THREADS, *more])
        return [figure(out, r"RESULT.* tok/s ([\d.]+)")], peak
    return measure


def graft_nf4(_):
    out, _ = run(["go", "test", "-run", "^$", "-bench", "Quantize4/double=true|DecodeRows/float32", "./quantize"])
    return [figure(out, rf"{name}\S*\s+\d+.*?([\d.]+) Gelem/s") for name in ("Quantize4/double=true", "DecodeRows/float32")], None


def bnb_nf4(_):
    out, _ = run([PYTHON, f"{PEERS}/quant_bnb.py"])
    return [figure(out, rf" {name} ([\d.]+) Gelem/s") for name in ("quantize", "dequantize")], None


def graft_score(*flags):
    def measure(work):
        for flag in flags[::2]:
            if flag not in run([GRAFT, "eval", "perplexity", "--help"])[0]:
                raise Failed(f"this version of graft eval perplexity has no {flag}")
        # Several windows, for the first pays for memory that the others reuse.
        out, peak = run([GRAFT, "eval", "perplexity", MODEL, "--text", work / "text.txt", "--context", SCORED,
                         "--max-tokens", 8 * SCORED, "--json", *flags])
        return [json.loads(out)["tokens_per_second"]], peak
    return measure


def torch_score(dtype):
    def measure(work):
        out, peak = run([PYTHON, HERE / "peer_score.py", MODEL, work / "text.txt", dtype, SCORED])
        return [figure(out, r"RESULT.* tok/s ([\d.]+)")], peak
    return measure


def graft_generate(model):
    def measure(work):
        out, peak = run([GRAFT, "generate", model(work), "--raw", "-p", PROMPT, "--max-tokens", GENERATED, "--json"])
        result = json.loads(out)[0]
        if result["tokens"] != GENERATED:
            raise Failed(f"graft generate stopped after {result['tokens']} tokens")
        return [result["tokens_per_second"]], peak
    return measure


def llamacpp_generate(model):
    def measure(work):
        out, peak = run([PYTHON, HERE / "peer_llamacpp.py", "generate", model(work), PROMPT, "--tokens", GENERATED, "--threads", THREADS])
        return [figure(out, r"RESULT.* tok/s ([\d.]+)")], peak
    return measure


def millions(seconds):
    """Weights a second, in millions; the file has little else, at four bytes each."""
    return MODEL_GGUF.stat().st_size / 4e6 / seconds


def graft_quantize(work):
    start = time.time()
    _, peak = run([GRAFT, "quantize", MODEL_GGUF, "-o", work / "graft.gguf", "--type", "q4_k_m", "--no-verify", "--force"])
    return [millions(time.time() - start)], peak


def llamacpp_quantize(work):
    out, peak = run([PYTHON, HERE / "peer_llamacpp.py", "quantize", MODEL_GGUF, work / "peer.gguf", "--threads", THREADS])
    return [millions(figure(out, r"RESULT quantize ([\d.]+) s"))], peak


def converting(source, command):
    """Megabytes of the source's tensors a second of the whole command, its start and, unless it says otherwise, its proof."""
    def measure(work):
        out = work / "converted"
        files = list(source.glob("*.safetensors")) or [source]
        for f in files:  # both sides find it in memory
            with f.open("rb") as opened:
                while opened.read(1 << 20):
                    pass
        start = time.time()
        _, peak = run([x if x != "OUT" else out for x in command()])
        seconds = time.time() - start
        shutil.rmtree(out, ignore_errors=True)
        for left in work.glob("converted*"):
            left.unlink()
        return [sum(f.stat().st_size for f in files) / 1e6 / seconds], peak
    return measure


def graft_convert(source, *more):
    return converting(source, lambda: [GRAFT, "convert", source, "-o", "OUT", *more])


def graft_adapter(what):
    """Does something to an adapter of rank 16 on all linear layers, or to the model with it, and gives how often a
    second: merge, merge with the proof, convert to GGUF, extract at rank 16 from the merged model."""
    def measure(work):
        adapter, tuned, out = work / "adapter", work / "tuned", work / f"made-{what.replace(' ', '-')}"
        if not adapter.exists():
            run([GRAFT, "train", "--model", MODEL, "--data", work / "text.txt", "-o", adapter, "--set", "packing=stream", "--set", "train_on=all",
                 "--set", "r=16", "--set", "target_modules=all-linear", "--set", "max_steps=2", "--set", "batch_size=1", "--set", "max_length=64",
                 "--set", "learning_rate=0.01"])
        if what == "extract" and not tuned.exists():
            run([GRAFT, "merge", MODEL, adapter, "-o", tuned, "--no-verify"])
        command = {
            "merge": ["merge", MODEL, adapter, "-o", out, "--no-verify"],
            "merge to gguf": ["merge", MODEL_GGUF, adapter, "-o", out.with_suffix(".gguf"), "--no-verify"],
            "merge proved": ["merge", MODEL, adapter, "-o", out],
            "convert": ["adapter", "convert", adapter, "--base", MODEL, "-o", out.with_suffix(".gguf")],
            "extract": ["adapter", "extract", MODEL, tuned, "--rank", "16", "-o", out],
        }[what]
        start = time.time()
        _, peak = run([GRAFT, *command])
        seconds = time.time() - start
        shutil.rmtree(out, ignore_errors=True)
        for left in work.glob(out.name + ".*"):
            left.unlink()
        return [1 / seconds], peak
    return measure


def peer_adapter(*command):
    def measure(work):
        out = work / "peer-made"
        out_, peak = run([x if not isinstance(x, str) else x.replace("ADAPTER", str(work / "adapter")).replace("OUT", str(out)) for x in command])
        shutil.rmtree(out, ignore_errors=True)
        return [1 / float(figure(out_, r"RESULT.*?([\d.]+) s"))], peak
    return measure


def llamacpp_lora(work):
    """llama.cpp's script beside its convert_hf_to_gguf.py, with the start of Python."""
    if not CONVERT:
        raise Failed("GRAFT_PEERS_CONVERT names no convert_hf_to_gguf.py")
    start = time.time()
    _, peak = run([PYTHON, pathlib.Path(CONVERT).with_name("convert_lora_to_gguf.py"), work / "adapter", "--base", MODEL,
                   "--outfile", work / "peer-lora.gguf", "--outtype", "f32"])
    return [1 / (time.time() - start)], peak


def llamacpp_merge(work):
    if not EXPORT_LORA:
        raise Failed("GRAFT_PEERS_EXPORT_LORA names no llama-export-lora")
    lora, out = work / "lora.gguf", work / "peer-merged.gguf"
    if not lora.exists():
        run([GRAFT, "adapter", "convert", work / "adapter", "--base", MODEL, "-o", lora])
    start = time.time()
    _, peak = run([EXPORT_LORA, "-m", MODEL_GGUF, "--lora", lora, "-o", out, "-t", THREADS])
    seconds = time.time() - start
    out.unlink()
    return [1 / seconds], peak


def llamacpp_convert():
    if not CONVERT:
        raise Failed("GRAFT_PEERS_CONVERT names no convert_hf_to_gguf.py")
    return [PYTHON, CONVERT, MODEL_BF16, "--outfile", "OUT", "--outtype", "f16"]


def q4_k_m(work):
    """The model in Q4_K_M, made once."""
    if not (work / "q4_k_m.gguf").exists():
        run([GRAFT, "quantize", MODEL_GGUF, "-o", work / "q4_k_m.gguf", "--type", "q4_k_m", "--no-verify"])
    return work / "q4_k_m.gguf"


GENERATING = {"Q4_1": lambda _: GGUF, "Q4_K_M": q4_k_m, "float32": lambda _: MODEL_GGUF}

GRAFT_WORK = {
    "lora f32": graft_train("lora", "f32"), "lora bf16": graft_train("lora", "bf16"),
    "qlora f32": graft_train("qlora", "f32"), "qlora bf16": graft_train("qlora", "bf16"),
    "full f32": graft_train("full", "f32"),
    "nf4": graft_nf4, "q4_k_m": graft_quantize,
    "to gguf": graft_convert(MODEL_BF16, "--to", "gguf", "--type", "f16"),
    "to gguf, no proof": graft_convert(MODEL_BF16, "--to", "gguf", "--type", "f16", "--no-verify"),
    "to folder": graft_convert(GGUF),
    "merge": graft_adapter("merge"), "merge to gguf": graft_adapter("merge to gguf"), "merge, proved": graft_adapter("merge proved"),
    "adapter to gguf": graft_adapter("convert"), "extract": graft_adapter("extract"),
    "score f32": graft_score(), "score bf16": graft_score("--compute", "bf16"),
    **{f"generate {name}": graft_generate(model) for name, model in GENERATING.items()},
}
PEER_WORK = {
    "PEFT fp32": torch_train("fp32"), "PEFT bf16": torch_train("bf16"),
    "PEFT + bnb fp32": torch_train("nf4fp32"), "PEFT + bnb bf16": torch_train("nf4"),
    "PyTorch full fp32": torch_train("fp32", "--full"), "llama.cpp full": llamacpp("full", "--steps", STEPS, "--length", LENGTH),
    "bitsandbytes": bnb_nf4, "llama.cpp q4_k_m": llamacpp_quantize,
    "llama.cpp convert": converting(MODEL_BF16, llamacpp_convert),
    "transformers convert": converting(GGUF, lambda: [PYTHON, HERE / "peer_convert.py", GGUF, "OUT"]),
    "PEFT merge": peer_adapter(PYTHON, HERE / "peer_adapter.py", "merge", MODEL, "ADAPTER", "OUT"),
    "PyTorch extract": peer_adapter(PYTHON, HERE / "peer_adapter.py", "extract", MODEL, "ADAPTER", "OUT"),
    "llama.cpp lora": llamacpp_lora, "llama.cpp merge": llamacpp_merge,
    "transformers fp32": torch_score("float32"), "transformers bf16": torch_score("bfloat16"),
    "llama.cpp score": llamacpp("score", "--tokens", SCORED),
    **{f"llama.cpp generate {name}": llamacpp_generate(model) for name, model in GENERATING.items()},
}


@dataclass
class Row:
    """One line of the table: a figure of one work of Graft beside that of a peer."""
    name: str
    graft: str
    peer: str
    unit: str = "tokens/s"
    figure: int = 0  # which of the figures that the work gives
    modes: tuple = ()  # the ways in which the peer does such work, of which the best counts too


LORA, QLORA = ("PEFT fp32", "PEFT bf16"), ("PEFT + bnb fp32", "PEFT + bnb bf16")
FULL = ("PyTorch full fp32", "llama.cpp full")
SCORE = ("transformers fp32", "llama.cpp score")
SIZE = f"{SEQUENCES} × {LENGTH} tokens"
ROWS = [
    Row(f"LoRA r 16, float32, {SIZE}", "lora f32", "PEFT fp32", modes=LORA),
    Row(f"LoRA r 16, bf16, {SIZE}", "lora bf16", "PEFT bf16", modes=LORA),
    Row(f"QLoRA NF4, float32, {SIZE}", "qlora f32", "PEFT + bnb fp32", modes=QLORA),
    Row(f"QLoRA NF4, bf16, {SIZE}", "qlora bf16", "PEFT + bnb bf16", modes=QLORA),
    Row(f"full fine-tuning, float32, {SIZE}", "full f32", "PyTorch full fp32", modes=FULL),
    Row(f"full fine-tuning, float32 (llama.cpp: 1 × {LENGTH} a step)", "full f32", "llama.cpp full", modes=FULL),
    Row("NF4 with double quantization", "nf4", "bitsandbytes", "Gelem/s"),
    Row("decoding it (Graft: one core)", "nf4", "bitsandbytes", "Gelem/s", figure=1),
    Row("float32 GGUF to Q4_K_M (Graft: with starting and hashing)", "q4_k_m", "llama.cpp q4_k_m", "M weights/s"),
    Row("bf16 folder → F16 GGUF, proved", "to gguf", "llama.cpp convert", "MB/s"),
    Row("bf16 folder → F16 GGUF", "to gguf, no proof", "llama.cpp convert", "MB/s"),
    Row("Q4_1 GGUF → float32 folder, proved", "to folder", "transformers convert", "MB/s"),
    Row("adapter merged into a float32 folder (PEFT: without its start)", "merge", "PEFT merge", "a second"),
    Row("the same, proved", "merge, proved", "PEFT merge", "a second"),
    Row("adapter merged into a float32 GGUF file", "merge to gguf", "llama.cpp merge", "a second"),
    Row("adapter to GGUF", "adapter to gguf", "llama.cpp lora", "a second"),
    Row("adapter of rank 16 extracted from two models (PyTorch: SVD alone)", "extract", "PyTorch extract", "a second"),
    Row(f"scoring {SCORED} tokens, float32", "score f32", "transformers fp32", modes=SCORE),
    Row(f"scoring {SCORED} tokens, float32 (llama.cpp)", "score f32", "llama.cpp score", modes=SCORE),
    Row(f"scoring {SCORED} tokens, bf16", "score bf16", "transformers bf16", modes=("transformers bf16", *SCORE)),
    *(Row(f"generating {GENERATED} tokens, {name} GGUF", f"generate {name}", f"llama.cpp generate {name}") for name in GENERATING),
]


def prepare(work, peers):
    """Makes the text and the models that both sides read."""
    text(work / "text.txt")
    run([ROOT / "testdata" / "quickstart" / "fetch.sh", "model", GGUF.parent])
    if not (MODEL / "config.json").exists():
        shutil.rmtree(MODEL, ignore_errors=True)
        run([GRAFT, "convert", GGUF, "-o", MODEL, "--type", "f32"])
    if not (MODEL_BF16 / "config.json").exists():
        shutil.rmtree(MODEL_BF16, ignore_errors=True)
        run([GRAFT, "convert", GGUF, "-o", MODEL_BF16, "--type", "bf16"])
    if not MODEL_GGUF.exists():
        run([GRAFT, "convert", GGUF, "-o", MODEL_GGUF, "--type", "f32"])


def measure(work, graft, peers):
    """Does every work ROUNDS times, each beside its peers; returns what came of it by name. A work that fails once
    is not tried again: its entry says why."""
    results = {name: {"figures": [], "peak_mb": None} for name in [*graft, *peers]}
    for i in range(ROUNDS):
        for name, job in [*interleaved(graft, peers)]:
            entry = results[name]
            if "missing" in entry:
                continue
            print(f"round {i + 1} of {ROUNDS}: {name}", file=sys.stderr)
            try:
                figures, peak = job(work)
            except Failed as e:
                print(f"bench: {name}: {e}", file=sys.stderr)
                entry["missing"] = str(e)
                continue
            entry["figures"].append(figures)
            if peak is not None:
                entry["peak_mb"] = max(entry["peak_mb"] or 0, round(peak))
    return results


def interleaved(graft, peers):
    """Each work of Graft's followed by those of its peers that have not had their turn."""
    seen = set()
    for name in graft:
        yield name, GRAFT_WORK[name]
        for r in ROWS:
            for p in (r.peer, *r.modes):
                if r.graft == name and p in peers and p not in seen:
                    seen.add(p)
                    yield p, PEER_WORK[p]


def median(results, name, which):
    figures = results.get(name, {}).get("figures")
    return statistics.median(f[which] for f in figures) if figures else None


def compare(row, results):
    """The row as JSON has it."""
    def side(name):
        r = results.get(name)
        if r is None:
            return None
        return {"work": name, "figures": [f[row.figure] for f in r["figures"]], "median": median(results, name, row.figure),
                "peak_mb": r["peak_mb"], **({"missing": r["missing"]} if "missing" in r else {})}

    out = {"name": row.name, "unit": row.unit, "graft": side(row.graft), "peer": side(row.peer)}
    ours, theirs = median(results, row.graft, row.figure), median(results, row.peer, row.figure)
    if ours and theirs:
        out["speed_ratio"] = ours / theirs
        if results[row.graft]["peak_mb"] and results[row.peer]["peak_mb"]:
            out["memory_ratio"] = results[row.graft]["peak_mb"] / results[row.peer]["peak_mb"]
    known = {m: v for m in row.modes if (v := median(results, m, row.figure))}
    if ours and known:
        best = max(known, key=known.get)
        out |= {"best_peer": best, "best_median": known[best], "best_ratio": ours / known[best]}
    return out


def report(rows):
    lines = [["work", "unit", "peer", "its figure", "Graft", "speed", "vs best", "peer MB", "Graft MB", "memory"]]
    for r in rows:
        graft, peer, form = r["graft"], r["peer"] or {}, ".0f" if r["unit"] in ("tokens/s", "MB/s") else ".3f"
        lines.append([r["name"], r["unit"], peer.get("work", ""), number(peer.get("median"), form), number(graft["median"], form),
                      number(r.get("speed_ratio"), ".2f"), number(r.get("best_ratio"), ".2f"), number(peer.get("peak_mb"), "d"),
                      number(graft["peak_mb"], "d"), number(r.get("memory_ratio"), ".2f")])
    table(lines, left=3)


def main():
    if sys.argv[1:] == ["--list"]:
        print("\n".join(r.name for r in ROWS))
        return
    chosen = [r for r in ROWS if ONLY.search(r.name)]
    if not chosen:
        sys.exit(f"bench: GRAFT_BENCH_ONLY={ONLY.pattern} chooses no row; bench.py --list prints their names")
    graft = list(dict.fromkeys(r.graft for r in chosen))
    # A row's peer, and the other modes that decide which is best.
    peers = list(dict.fromkeys(p for r in chosen for p in (r.peer, *r.modes))) if PEERS else []
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        prepare(folder, peers)
        results = measure(folder, graft, peers)
    rows = [compare(r, results) for r in chosen]
    result = {"date": datetime.date.today().isoformat(), "processor": processor(), "threads": THREADS, "rounds": ROUNDS, "steps": STEPS, "work": rows}
    save("bench.json", result)
    print(f"{result['date']}, {THREADS} threads of {result['processor']}; medians of {ROUNDS} rounds, peaks of all;"
          f" \"vs best\" is against the fastest of the peers' modes for the same work")
    report(rows)
    if missing := [r["graft"]["work"] for r in rows if "missing" in r["graft"]]:
        sys.exit(f"bench: nothing measured for {', '.join(dict.fromkeys(missing))}")


if __name__ == "__main__":
    try:
        main()
    except Failed as e:
        sys.exit(f"bench: {e}")
