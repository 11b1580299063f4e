"""How the cost of training grows: tokens/s and peak memory by sequence length and batch, on SmolLM2-135M.

    make bench-scaling
    python3 testdata/bench/scaling.py --method qlora --compute bf16 --lengths 128,1024,4096 --batches 1,4 --steps 2

Every length × batch of at most --tokens in a pass runs in a process of its own; a text long enough is made of the
quickstart's rows. Then memory is fitted by least squares to what a pass has of tokens and, in a second fit, of
tokens × length too: what a T × T matrix a head would take. Memory is linear in tokens where the first fit explains it
and the second adds nothing. Prints two tables, writes bench-scaling.json. Needs no package.
"""
import argparse
import datetime
import pathlib
import statistics
import sys
import tempfile

from common import ROOT, THREADS, Failed, processor, save, table, text, train


def numbers(s):
    return [int(x) for x in s.split(",")]


p = argparse.ArgumentParser()
p.add_argument("--method", default="lora", choices=["lora", "qlora", "full"])
p.add_argument("--compute", default="f32", choices=["f32", "bf16"])
p.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="of the recipe; repeatable")
p.add_argument("--lengths", default=[128, 256, 512, 1024, 2048, 4096], type=numbers)
p.add_argument("--batches", default=[1, 2, 4, 8, 16, 32], type=numbers)
p.add_argument("--tokens", default=8192, type=int, help="the most of a pass")
p.add_argument("--steps", default=2, type=int)
p.add_argument("--model", default=ROOT / "quickstart" / "base-f32", type=pathlib.Path)
a = p.parse_args()


def solve(matrix, right):
    """Gaussian elimination with pivots."""
    n = len(right)
    m = [[*row, r] for row, r in zip(matrix, right)]
    for i in range(n):
        pivot = max(range(i, n), key=lambda r: abs(m[r][i]))
        m[i], m[pivot] = m[pivot], m[i]
        for r in range(n):
            if r != i:
                f = m[r][i] / m[i][i]
                m[r] = [x - f * y for x, y in zip(m[r], m[i])]
    return [m[i][n] / m[i][i] for i in range(n)]


def fit(columns, y):
    """Least squares of y on columns; returns the coefficients, R² and the largest residual."""
    scales = [max(map(abs, c)) for c in columns]
    columns = [[x / s for x in c] for c, s in zip(columns, scales)]
    normal = [[sum(u * v for u, v in zip(c, d)) for d in columns] for c in columns]
    w = solve(normal, [sum(u * v for u, v in zip(c, y)) for c in columns])
    residuals = [v - sum(k * c[i] for k, c in zip(w, columns)) for i, v in enumerate(y)]
    mean = statistics.mean(y)
    return [k / s for k, s in zip(w, scales)], 1 - sum(r * r for r in residuals) / sum((v - mean) ** 2 for v in y), max(map(abs, residuals))


def growth(cells):
    """The two fits. The second term is given as what it adds at the largest pass, beside what tokens add."""
    tokens, square, y = [c["tokens"] for c in cells], [c["tokens"] * c["length"] for c in cells], [c["peak_mb"] for c in cells]
    ones = [1.0] * len(y)
    if len(set(tokens)) < 2:
        return None
    (base, slope), r2, worst = fit([ones, tokens], y)
    out = {"base_mb": base, "kb_per_token": slope * 1000, "r2": r2, "largest_residual_mb": worst}
    if len({c["length"] for c in cells}) > 2 and len(cells) > 4:
        (_, slope2, quadratic), r2_2, worst2 = fit([ones, tokens, square], y)
        out |= {"with_square": {"kb_per_token": slope2 * 1000, "bytes_per_token_squared": quadratic * 1e6, "r2": r2_2, "largest_residual_mb": worst2,
                                "share_at_largest": quadratic * max(square) / max(y)}}
    return out


def measure(work):
    text(work / "text.txt", 1 + a.tokens * (a.steps + 1) // 8000)
    if not (a.model / "config.json").exists():
        sys.exit(f"scaling: there is no model in {a.model}; make quickstart, or `graft convert`, makes one, and --model names another")
    cells = []
    for length in a.lengths:
        for batch in a.batches:
            if length * batch > a.tokens:
                continue
            try:
                steps, peak = train(a.model, work / "text.txt", work / "run", a.method, a.compute, a.steps, batch, length, a.set)
            except Failed as e:
                print(f"scaling: {batch} × {length}: {e}", file=sys.stderr)
                continue
            speed = statistics.median(s["tokens_per_second"] for s in (steps[1:] or steps))
            cells.append({"length": length, "batch": batch, "tokens": length * batch, "tokens_per_second": speed, "peak_mb": peak})
            print(f"{batch} × {length}: {speed:.0f} tokens/s, {peak:.0f} MB", file=sys.stderr)
    return cells


def grid(cells, key):
    by_place = {(c["length"], c["batch"]): c[key] for c in cells}
    lines = [["length", *(f"× {b}" for b in a.batches)]]
    for n in a.lengths:
        lines.append([str(n), *(f"{by_place[n, b]:.0f}" if (n, b) in by_place else "" for b in a.batches)])
    table(lines)


with tempfile.TemporaryDirectory() as name:
    cells = measure(pathlib.Path(name))
if not cells:
    sys.exit("scaling: nothing was measured")
result = {"date": datetime.date.today().isoformat(), "processor": processor(), "threads": THREADS, "method": a.method, "compute": a.compute,
          "sets": a.set, "steps": a.steps, "cells": cells, "memory": growth(cells)}
save("bench-scaling.json", result)
print(f"{result['date']}, {THREADS} threads of {result['processor']}; {a.method}, {a.compute}{''.join(' ' + s for s in a.set)}\n\ntokens/s by sequence length and batch")
grid(cells, "tokens_per_second")
print("\npeak memory in MB")
grid(cells, "peak_mb")
if g := result["memory"]:
    print(f"\nmemory = {g['base_mb']:.0f} MB + {g['kb_per_token']:.1f} KB a token; R² {g['r2']:.5f}, largest residual {g['largest_residual_mb']:.0f} MB")
    if s := g.get("with_square"):
        print(f"with a term tokens × length: {s['bytes_per_token_squared']:.3f} bytes, {100 * s['share_at_largest']:.1f} % of the largest peak; "
              f"{s['kb_per_token']:.1f} KB a token; R² {s['r2']:.5f}, largest residual {s['largest_residual_mb']:.0f} MB")
