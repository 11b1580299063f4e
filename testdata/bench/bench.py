"""Graft and its peers at the same work, one after the other in each round: medians, ratios, peak memory.

Run it with `make bench`. It prints a table and writes bench.json. The peers run where GRAFT_PEERS names a
folder with train_peft.py (PEFT), quant_bnb.py (bitsandbytes) and score_hf.py (transformers), each of which
prints a line RESULT; GRAFT_PEERS_PYTHON is the Python that has their packages. Without it their columns
stay empty. GRAFT_BENCH_ROUNDS (3) and GRAFT_BENCH_STEPS (6) say how long it takes. Needs no package.
"""
import datetime
import json
import os
import pathlib
import platform
import re
import shutil
import statistics
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parents[2]
GRAFT = ROOT / "bin" / "graft"
GGUF = ROOT / "quickstart" / "SmolLM2-135M-Instruct.Q4_1.gguf"
MODEL = ROOT / "quickstart" / "base-f32"  # the same in float32, for both sides
PEERS = os.environ.get("GRAFT_PEERS")
PYTHON = os.environ.get("GRAFT_PEERS_PYTHON", sys.executable)
ROUNDS = int(os.environ.get("GRAFT_BENCH_ROUNDS", "3"))
STEPS = max(2, int(os.environ.get("GRAFT_BENCH_STEPS", "6")))
THREADS = 2  # what the peers' scripts are written for
SEQUENCES, LENGTH, SCORED = 4, 256, 512

# Runs score_hf.py, then times the forward pass on the same tokens.
SCORE = """
import runpy, statistics, sys, time, torch
sys.argv = sys.argv[1:]
g = runpy.run_path(sys.argv[0])
times = []
with torch.no_grad():
    for _ in range(5):
        start = time.time()
        g["model"](g["ids"]).logits.double().log_softmax(-1)[0, :-1].gather(1, g["ids"][0, 1:, None])
        times.append(time.time() - start)
print("RESULT tok/s", g["ids"].shape[1] / statistics.median(times))
"""


def run(args):
    """Runs a command in the root folder; returns its stdout and its peak resident size in MB."""
    env = dict(os.environ, GOMAXPROCS=str(THREADS))
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        p = subprocess.Popen([str(a) for a in args], cwd=ROOT, env=env, stdout=out, stderr=err)
        _, status, usage = os.wait4(p.pid, 0)
        p.returncode = os.waitstatus_to_exitcode(status)
        out.seek(0), err.seek(0)
        if p.returncode != 0:
            sys.exit(f"bench: {args[0]} failed:\n{err.read()[-2000:]}")
        scale = 1e6 if sys.platform == "darwin" else 1e6 / 1024
        return out.read(), usage.ru_maxrss / scale


def figure(text, pattern):
    found = re.search(pattern, text)
    if not found:
        sys.exit(f"bench: no {pattern!r} in {text[-500:]!r}")
    return float(found.group(1))


def graft_train(method, compute, work):
    out = work / "run"
    _, peak = run([GRAFT, "train", "--model", MODEL, "--data", work / "text.txt", "-o", out, "--force", "--method", method,
                   "--set", f"compute={compute}", "--set", "packing=stream", "--set", f"max_length={LENGTH}",
                   "--set", f"batch_size={SEQUENCES}", "--set", f"max_steps={STEPS}", "--set", "lr_scheduler=constant",
                   "--set", "max_grad_norm=0"])
    steps = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    # The first step pays for what the others reuse, on either side.
    return [statistics.median(s["tokens_per_second"] for s in steps[1:])], peak


def peer_train(mode, work):
    out, peak = run([PYTHON, f"{PEERS}/train_peft.py", "--model", MODEL, "--mode", mode, "--text", work / "text.txt",
                     "--steps", STEPS, "--bs", SEQUENCES, "--seq", LENGTH, "--threads", THREADS])
    return [figure(out, r"RESULT.* tok/s ([\d.]+)")], peak


def graft_nf4(_):
    out, _ = run(["go", "test", "-run", "^$", "-bench", "Quantize4/double=true|DecodeRows/float32", "./quantize"])
    return [figure(out, rf"{name}\S*\s+\d+.*?([\d.]+) Gelem/s") for name in ("Quantize4/double=true", "DecodeRows/float32")], None


def peer_nf4(_):
    out, _ = run([PYTHON, f"{PEERS}/quant_bnb.py"])
    return [figure(out, rf" {name} ([\d.]+) Gelem/s") for name in ("quantize", "dequantize")], None


def graft_score(work):
    # Several windows, for the first pays for memory that the others reuse.
    out, peak = run([GRAFT, "eval", "perplexity", MODEL, "--text", work / "text.txt", "--context", SCORED, "--max-tokens", 8 * SCORED, "--json"])
    return [json.loads(out)["tokens_per_second"]], peak


def peer_score(work):
    out, peak = run([PYTHON, "-c", SCORE, f"{PEERS}/score_hf.py", MODEL, work / "text.txt"])
    return [figure(out, r"RESULT tok/s ([\d.]+)")], peak


def training(name, method, compute, mode):
    return ([f"{name}, {SEQUENCES} × {LENGTH} tokens"], "tokens/s", lambda w: graft_train(method, compute, w), lambda w: peer_train(mode, w))


# The names of a job's figures, their unit, and the job on either side.
JOBS = [
    training("LoRA r 16, float32", "lora", "f32", "fp32"),
    training("LoRA r 16, bf16", "lora", "bf16", "bf16"),
    training("QLoRA NF4, float32", "qlora", "f32", "nf4fp32"),
    training("QLoRA NF4, bf16", "qlora", "bf16", "nf4"),
    (["NF4 with double quantization", "decoding it (Graft: one core)"], "Gelem/s", graft_nf4, peer_nf4),
    ([f"scoring {SCORED} tokens, float32"], "tokens/s", graft_score, peer_score),
]


def processor():
    try:
        return re.search(r"model name\s*: (.*)", pathlib.Path("/proc/cpuinfo").read_text()).group(1)
    except (OSError, AttributeError):
        return platform.processor() or platform.machine()


def prepare(work):
    """Makes the text and the model that both sides read."""
    data = ROOT / "testdata" / "quickstart"
    (work / "text.txt").write_text("".join((data / f"{name}.jsonl").read_text() for name in ("pirate", "json")))
    run([data / "fetch.sh", "model", GGUF.parent])
    if not (MODEL / "config.json").exists():
        shutil.rmtree(MODEL, ignore_errors=True)
        run([GRAFT, "convert", GGUF, "-o", MODEL, "--type", "f32"])


def measure(work):
    """Runs every job ROUNDS times; returns a row for each figure."""
    sides = ["graft", "peer"] if PEERS else ["graft"]
    rows = [{"name": n, "unit": unit, **{s: {"figures": [], "peak_mb": None} for s in sides}} for names, unit, _, _ in JOBS for n in names]
    by_name = {r["name"]: r for r in rows}
    for i in range(ROUNDS):
        for names, _, graft, peer in JOBS:
            for side, job in zip(sides, (graft, peer)):
                print(f"round {i + 1} of {ROUNDS}: {side}, {names[0]}", file=sys.stderr)
                figures, peak = job(work)
                for n, f in zip(names, figures, strict=True):
                    entry = by_name[n][side]
                    entry["figures"].append(f)
                    if peak is not None:
                        entry["peak_mb"] = max(entry["peak_mb"] or 0, round(peak))
    for r in rows:
        for s in sides:
            r[s]["median"] = statistics.median(r[s]["figures"])
        if PEERS:
            r["speed_ratio"] = r["graft"]["median"] / r["peer"]["median"]
            if r["graft"]["peak_mb"]:
                r["memory_ratio"] = r["graft"]["peak_mb"] / r["peer"]["peak_mb"]
    return rows


def table(rows):
    def number(x, form):
        return "" if x is None else format(x, form)

    lines = [["work", "unit", "peer", "Graft", "speed", "peer MB", "Graft MB", "memory"]]
    for r in rows:
        peer, form = r.get("peer", {}), ".0f" if r["unit"] == "tokens/s" else ".3f"
        lines.append([r["name"], r["unit"], number(peer.get("median"), form), number(r["graft"]["median"], form),
                      number(r.get("speed_ratio"), ".2f"), number(peer.get("peak_mb"), "d"), number(r["graft"]["peak_mb"], "d"),
                      number(r.get("memory_ratio"), ".2f")])
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    for line in lines:
        print("  ".join(c.ljust(w) if i < 2 else c.rjust(w) for i, (c, w) in enumerate(zip(line, widths))))


with tempfile.TemporaryDirectory() as name:
    folder = pathlib.Path(name)
    prepare(folder)
    rows = measure(folder)
result = {"date": datetime.date.today().isoformat(), "processor": processor(), "threads": THREADS, "rounds": ROUNDS, "steps": STEPS, "work": rows}
(ROOT / "bench.json").write_text(json.dumps(result, indent=2, ensure_ascii=False) + "\n")
print(f"{result['date']}, {THREADS} threads of {result['processor']}; medians of {ROUNDS} rounds, peaks of all")
table(rows)
