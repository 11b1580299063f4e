"""What a model far larger than memory takes: a file of zeros with a real header, which needs no room on the disk.

    make bench-large                              # 8 GB, and 5 GB of disk for what is made of it
    make bench-large ARGS='--gigabytes 40 --temp FOLDER'  # 26 GB of disk

Prints seconds and peak memory of inspecting it, and of converting, quantizing and merging it, each also for a quarter
of the size: memory must not grow with it. Writes bench-large.json. Needs no package.
"""
import argparse
import datetime
import json
import pathlib
import shutil
import struct
import sys
import tempfile
import time

from common import GRAFT, THREADS, Failed, processor, run, save, table

p = argparse.ArgumentParser()
p.add_argument("--gigabytes", type=int, default=8, help="of the model, at least 4")
p.add_argument("--temp", metavar="FOLDER", help="a folder on a disk with room")
a = p.parse_args()
WIDTH, RANK = 8192, 4  # of randommodel -sparse


def adapter(folder, layers):
    """Writes an adapter of q_proj of every layer in PEFT's form."""
    folder.mkdir()
    header, data, at = {}, [], 0
    for layer in range(layers):
        for half, shape, value in (("A", [RANK, WIDTH], 0.01), ("B", [WIDTH, RANK], 0.02)):
            raw = struct.pack("<f", value) * (RANK * WIDTH)
            header[f"base_model.model.model.layers.{layer}.self_attn.q_proj.lora_{half}.weight"] = {
                "dtype": "F32", "shape": shape, "data_offsets": [at, at + len(raw)]}
            data.append(raw)
            at += len(raw)
    head = json.dumps(header).encode()
    (folder / "adapter_model.safetensors").write_bytes(struct.pack("<Q", len(head)) + head + b"".join(data))
    (folder / "adapter_config.json").write_text(json.dumps({
        "peft_type": "LORA", "r": RANK, "lora_alpha": 8, "target_modules": ["q_proj"], "task_type": "CAUSAL_LM"}))


def measure(work, gigabytes):
    made = {"folder": work / "hf", "GGUF": work / "m.gguf"}
    for path in made.values():
        run(["go", "run", "./testdata/bench/randommodel", "-sparse", gigabytes, "-o", path])
    adapter(work / "adapter", gigabytes)
    out, rows = work / "out", []
    for form, model in made.items():
        for name, args in {
            "inspect": ["inspect", model],
            "Q4_0 → GGUF": ["convert", model, "-o", out.with_suffix(".gguf"), "--type", "q4_0", "--no-verify"],
            "NF4": ["quantize", model, "-o", out, "--type", "nf4", "--no-verify"],
            "merge → NF4": ["merge", model, work / "adapter", "-o", out, "--type", "nf4", "--no-verify"],
        }.items():
            start = time.time()
            _, peak = run([GRAFT, *args])
            rows.append({"from": form, "work": name, "gigabytes": gigabytes, "seconds": time.time() - start, "peak_mb": peak})
            print(f"{gigabytes} GB {form}: {name}: {rows[-1]['seconds']:.2f} s, {peak:.0f} MB", file=sys.stderr)
            shutil.rmtree(out, ignore_errors=True)
            for left in work.glob("out.gguf*"):
                left.unlink()
    return rows


try:
    rows = []
    for gigabytes in (a.gigabytes // 4, a.gigabytes):
        with tempfile.TemporaryDirectory(dir=a.temp) as name:
            rows += measure(pathlib.Path(name), max(1, gigabytes))
except Failed as e:
    sys.exit(f"large: {e}")
save("bench-large.json", {"date": datetime.date.today().isoformat(), "processor": processor(), "threads": THREADS, "rows": rows})
print(f"{datetime.date.today().isoformat()}, {THREADS} threads of {processor()}")
table([["from", "work", "GB", "seconds", "peak MB"]] +
      [[r["from"], r["work"], str(r["gigabytes"]), f"{r['seconds']:.2f}", f"{r['peak_mb']:.0f}"] for r in rows], left=2)
