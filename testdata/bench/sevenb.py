"""QLoRA on a checkpoint of a 7B llama's shape: what it takes against what `graft plan` says.

    make bench-7b                       # makes a random checkpoint (4 GB, and as much again while it is written)
    python3 testdata/bench/sevenb.py --shape 1b --set compute=bf16 --set remat=block --keep FOLDER

Prints the losses, tokens a second, the planned and the measured peak and their ratio; writes bench-7b.json. Needs no package.
"""
import argparse
import datetime
import json
import pathlib
import statistics
import sys
import tempfile
import time

from common import GRAFT, THREADS, Failed, processor, recipe, run, save, text, train

p = argparse.ArgumentParser()
p.add_argument("--shape", default="7b", choices=["135m", "1b", "7b"])
p.add_argument("--steps", type=int, default=3)
p.add_argument("--sequences", type=int, default=1)
p.add_argument("--length", type=int, default=256)
p.add_argument("--method", default="qlora", choices=["lora", "qlora"])
p.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="of the recipe, for instance compute=bf16; repeatable")
p.add_argument("--keep", metavar="FOLDER", type=pathlib.Path, help="where the checkpoint lies, or is to be left, for the next run")
p.add_argument("--temp", metavar="FOLDER", help="a folder on a disk with room, for everything else")
a = p.parse_args()


def measure(work):
    model = a.keep.absolute() if a.keep else work / "model"
    made = None
    if not (model / "config.json").exists():
        print(f"writing a random checkpoint of shape {a.shape}", file=sys.stderr)
        start = time.time()
        run(["go", "run", "./testdata/bench/randommodel", "-shape", a.shape, "-o", model])
        made = time.time() - start
    text(work / "text.txt")
    compute = next((s.split("=")[1] for s in a.set if s.startswith("compute=")), "f32")
    sets = [s for s in a.set if not s.startswith("compute=")]
    options = [x for s in recipe(compute, a.length, a.sequences, a.steps) + sets for x in ("--set", s)]
    plan = json.loads(run([GRAFT, "plan", "--model", model, "--method", a.method, "--json", *options])[0])
    print(f"{a.steps} steps of {a.sequences} × {a.length} tokens", file=sys.stderr)
    start = time.time()
    steps, peak = train(model, work / "text.txt", work / "run", a.method, compute, a.steps, a.sequences, a.length, sets)
    return {
        "date": datetime.date.today().isoformat(), "processor": processor(), "threads": THREADS, "shape": a.shape, "method": a.method,
        "compute": compute, "sets": sets, "sequences": a.sequences, "length": a.length, "making_seconds": made,
        "training_seconds": time.time() - start, "losses": [s["loss"] for s in steps],
        "tokens_per_second": statistics.median(s["tokens_per_second"] for s in (steps[1:] or steps)),
        "planned_mb": plan["total"] / 1e6, "planned_parts": plan["parts"], "peak_mb": peak, "peak_to_plan": peak * 1e6 / plan["total"],
    }


try:
    with tempfile.TemporaryDirectory(dir=a.temp) as name:
        r = measure(pathlib.Path(name))
except Failed as e:
    sys.exit(f"sevenb: {e}")
save("bench-7b.json", r)
if r["making_seconds"]:
    print(f"checkpoint made in {r['making_seconds']:.0f} s")
print(f"{r['date']}, {THREADS} threads of {r['processor']}; {a.shape}, {a.method}, {r['compute']}{''.join(' ' + s for s in r['sets'])}")
print(f"losses {', '.join(f'{x:.4f}' for x in r['losses'])}; {r['tokens_per_second']:.1f} tokens/s, {r['training_seconds']:.0f} s in all")
print(f"planned {r['planned_mb']:.0f} MB, measured {r['peak_mb']:.0f} MB: {r['peak_to_plan']:.3f} of the plan")
