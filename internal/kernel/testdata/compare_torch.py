"""Compares the matrix products with PyTorch's (MKL for float32, oneDNN for bf16), alternating in the same minutes.

    make bench-gemm                                      # everything; about 15 minutes
    python3 compare_torch.py [--rounds 5] [--threads 1,2] [--isa best,avx2] [--only REGEX]

Products are those of a layer: forward (MulT), gradient of the input (Mul) and of the weight (MulTN), in float32; the
first two with both operands rounded to bf16 (half), PyTorch's in bf16 throughout; and both from a weight packed in NF4
(nf4, nf4-half), beside PyTorch's with a dense weight and, in the same process, Graft's own. GRAFT_KERNEL is set
for the level avx2, and with it what keeps MKL and oneDNN to AVX2; each level has a PyTorch process of its own.
Each figure is the best of all rounds, a round being the mean of some products in a row (about 20 ms, at least three), so
that other work on the machine weighs on neither side. --only chooses among lines such as "half MulT 1024,576→1536".
GRAFT_PEERS_PYTHON is the Python that has PyTorch. Prints a table, writes bench-gemm.json. PyTorch 2.15.0.
"""
import argparse
import datetime
import json
import os
import pathlib
import re
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[3]
LAYERS = [(1024, 576, 1536), (1024, 1536, 576), (1024, 576, 576), (1024, 576, 192), (1024, 576, 49152), (1024, 2048, 2048), (1024, 4096, 4096)]
ADAPTERS = [(1024, 576, 16), (1024, 16, 576), (1024, 16, 1536)]
AVX2 = {"GRAFT_KERNEL": "avx2", "MKL_ENABLE_INSTRUCTIONS": "AVX2", "ONEDNN_MAX_CPU_ISA": "AVX2", "ATEN_CPU_CAPABILITY": "avx2"}
LEVELS = {"best": {}, "avx2": AVX2}


def lines():
    """Type, product and shape of all that is compared."""
    for shape in LAYERS:
        for product in ("MulT", "Mul", "MulTN"):
            yield "f32", product, shape
        for kind in ("half", "nf4", "nf4-half"):
            if kind == "half" or shape[2] != 49152:  # the head is not quantized
                yield from ((kind, product, shape) for product in ("MulT", "Mul"))
    for shape in ADAPTERS:
        yield from (("f32", product, shape) for product in ("MulT", "Mul", "MulTN"))


def name_of(line):
    kind, product, (m, k, n) = line
    return f"{kind} {product} {m},{k}→{n}"


def repeats(flops):
    return max(3, int(4e9 / flops))


def ours(binaries, env, line, threads):
    """Graft's rate, and for NF4 its fraction of the same product with a dense weight."""
    kind, product, (m, k, n) = line
    where = {
        "f32": f"^Benchmark{product}$/^{m},{k}→{n}$", "half": f"^BenchmarkHalfProducts$/^{product}$/^{m},{k}→{n}$",
        "nf4": f"^BenchmarkProducts$/^{product}$/^NF4$/^{m},{k}→{n},half=false$", "nf4-half": f"^BenchmarkProducts$/^{product}$/^NF4$/^{m},{k}→{n},half=true$",
    }[kind]
    binary = binaries["quantize" if kind.startswith("nf4") else "kernel"]
    done = subprocess.run([binary, "-test.run", "^$", "-test.cpu", str(max(threads, 1)), "-test.bench", f"{where}/threads={threads}$",
                           "-test.benchtime", f"{repeats(2 * m * k * n)}x"],
                          capture_output=True, text=True, env=os.environ | env | {"GOMAXPROCS": str(threads)})
    found = re.search(r"([\d.e+]+) GFLOP/s", done.stdout)
    if done.returncode or not found:
        raise SystemExit(f"compare_torch: no figure for {name_of(line)}: {done.stdout[-500:]}{done.stderr[-500:]}")
    dense = re.search(r"([\d.e+]+) of-dense", done.stdout)
    return float(found[1]), float(dense[1]) if dense else None


def serve():
    """The PyTorch side: answers a line (type, product, shape, threads) with its rate."""
    import torch

    torch.manual_seed(0)
    products = {"MulT": lambda x, w, dy: torch.nn.functional.linear(x, w), "Mul": lambda x, w, dy: dy @ w, "MulTN": lambda x, w, dy: dy.t() @ x}
    last, operands = None, None
    print(json.dumps(torch.__version__), flush=True)
    with torch.inference_mode():
        for request in sys.stdin:
            kind, product, (m, k, n), threads = json.loads(request)
            torch.set_num_threads(threads)
            dtype = torch.bfloat16 if kind.endswith("half") else torch.float32
            if last != (m, k, n, dtype):
                last, operands = (m, k, n, dtype), [torch.randn(*s).to(dtype) for s in ((m, k), (n, k), (m, n))]
            f = products[product]
            f(*operands)
            times = repeats(2 * m * k * n)
            start = time.perf_counter()
            for _ in range(times):
                f(*operands)
            print(json.dumps(2e-9 * times * m * k * n / (time.perf_counter() - start)), flush=True)


class Torch:
    """A PyTorch process, kept to a level."""

    def __init__(self, env):
        python = os.environ.get("GRAFT_PEERS_PYTHON", sys.executable)
        self.process = subprocess.Popen([python, __file__, "--serve"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=os.environ | env)
        self.version = self.answer()

    def answer(self):
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit("compare_torch: the Python of GRAFT_PEERS_PYTHON has no PyTorch")
        return json.loads(line)

    def rate(self, line, threads):
        self.process.stdin.write(json.dumps([*line, threads]) + "\n")
        self.process.stdin.flush()
        return self.answer()


def build(folder):
    binaries = {}
    for package in ("internal/kernel", "quantize"):
        binaries[pathlib.Path(package).name] = out = f"{folder}/{pathlib.Path(package).name}.test"
        subprocess.run(["go", "test", "-c", "-o", out, f"./{package}"], cwd=ROOT, check=True)
    return binaries


def compare(a, binaries, level):
    env, rows = LEVELS[level], []
    torch = Torch(env)
    try:
        for line in lines():
            if not re.search(a.only, name_of(line)):
                continue
            row = {"level": level, "torch_version": torch.version, "name": name_of(line), "type": line[0], "product": line[1], "shape": line[2], "threads": {}}
            for threads in a.threads:
                mine = theirs = 0.0
                fractions = []
                for _ in range(a.rounds):
                    theirs = max(theirs, torch.rate(line, threads))
                    rate, dense = ours(binaries, env, line, threads)
                    mine = max(mine, rate)
                    fractions += [dense] if dense else []
                row["threads"][threads] = cell = {"graft": mine, "torch": theirs, "ratio": mine / theirs}
                if fractions:
                    cell["of_dense"] = sorted(fractions)[len(fractions) // 2]
            if len(a.threads) > 1:
                first, last = row["threads"][a.threads[0]], row["threads"][a.threads[-1]]
                row["scaling"] = {side: last[side] / first[side] for side in ("graft", "torch")}
            rows.append(row)
            print(show(row), flush=True)
    finally:
        torch.process.stdin.close()
        torch.process.wait()
    return rows


def show(row):
    cells = [f"{row['level']:5} {row['name']:30}"]
    for threads, c in row["threads"].items():
        of_dense = f", {c['of_dense']:.2f} of dense" if "of_dense" in c else ""
        cells.append(f"{threads} thr: {c['graft']:5.0f} / {c['torch']:5.0f} = {c['ratio']:.2f}{of_dense}")
    if "scaling" in row:
        cells.append(f"more threads: × {row['scaling']['graft']:.2f}, torch × {row['scaling']['torch']:.2f}")
    return "   ".join(cells)


def main():
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--rounds", type=int, default=5)
    p.add_argument("--threads", default="1,2", type=lambda s: [int(x) for x in s.split(",")])
    p.add_argument("--isa", default="best,avx2", type=lambda s: s.split(","))
    p.add_argument("--only", default="", metavar="REGEX")
    p.add_argument("--out", default=ROOT / "bench-gemm.json")
    p.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    a = p.parse_args()
    if a.serve:
        return serve()
    print("GFLOP/s, Graft / PyTorch = ratio; best of", a.rounds, "rounds")
    with tempfile.TemporaryDirectory() as folder:
        binaries = build(folder)
        rows = [row for level in a.isa for row in compare(a, binaries, level)]
    result = {"date": datetime.date.today().isoformat(), "rounds": a.rounds, "rows": rows}
    pathlib.Path(a.out).write_text(json.dumps(result, indent=2, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
