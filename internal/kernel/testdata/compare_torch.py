"""Compares the matrix products with PyTorch's (MKL), alternating in the same minutes.

    go test -c -o kernel.test ./internal/kernel
    python internal/kernel/testdata/compare_torch.py kernel.test [threads] [rounds]

Each figure is the best of all rounds, a round being the mean of some products in
a row (about 20 ms, at least three), so that other work on the machine weighs on
neither side. PyTorch 2.15.0.
"""
import re
import subprocess
import sys
import time

import torch

SHAPES = [(1024, 576, 1536), (1024, 1536, 576), (1024, 576, 49152)]  # m, in, out
ADAPTERS = [(1024, 576, 16), (1024, 16, 576), (1024, 16, 1536), (1, 576, 1536)]
PRODUCTS = {
    "MulT": lambda x, w, dy: torch.nn.functional.linear(x, w),
    "Mul": lambda x, w, dy: dy @ w,
    "MulTN": lambda x, w, dy: dy.t() @ x,
}


def repeats(flops):
    return max(3, int(4e9 / flops))


def ours(binary, product, m, k, n, threads):
    name = f"{product}$/^{m},{k}→{n}$/threads={threads}$"
    out = subprocess.run([binary, "-test.run", "^$", "-test.bench", name, "-test.benchtime", f"{repeats(2 * m * k * n)}x"],
                         capture_output=True, text=True, check=True).stdout
    return float(re.search(r"([\d.]+) GFLOP/s", out)[1])


def theirs(run, flops):
    run()
    start = time.perf_counter()
    for _ in range(repeats(flops)):
        run()
    return 1e-9 * repeats(flops) * flops / (time.perf_counter() - start)


def main():
    binary = sys.argv[1] if "/" in sys.argv[1] else "./" + sys.argv[1]
    threads = int(sys.argv[2]) if len(sys.argv) > 2 else 2
    rounds = int(sys.argv[3]) if len(sys.argv) > 3 else 8
    torch.manual_seed(0)
    torch.set_num_threads(threads)
    for m, k, n in SHAPES + ADAPTERS:
        x, w, dy = torch.randn(m, k), torch.randn(n, k), torch.randn(m, n)
        for product, f in PRODUCTS.items():
            a = b = 0.0
            with torch.inference_mode():
                for _ in range(rounds):
                    b = max(b, theirs(lambda: f(x, w, dy), 2 * m * n * k))
                    a = max(a, ours(binary, product, m, k, n, threads))
            print(f"{product:6} {m},{k}→{n}: {a:5.0f} GFLOP/s, torch {b:5.0f}, ratio {a / b:.2f}", flush=True)


if __name__ == "__main__":
    main()
