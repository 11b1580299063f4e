"""What the measuring scripts share: running a command, its peak memory, the machine, tables. Needs no package."""
import json
import os
import pathlib
import platform
import re
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parents[2]
GRAFT = ROOT / "bin" / "graft"
THREADS = 2  # what the peers' scripts are written for


class Failed(Exception):
    """A command failed; its text says which and how."""


def run(args, **env):
    """Runs a command in the root folder; returns its stdout and its peak resident size in MB."""
    env = dict(os.environ, GOMAXPROCS=str(THREADS)) | env
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        p = subprocess.Popen([str(a) for a in args], cwd=ROOT, env=env, stdout=out, stderr=err)
        try:
            _, status, usage = os.wait4(p.pid, 0)
        except KeyboardInterrupt:
            p.kill()
            raise
        p.returncode = os.waitstatus_to_exitcode(status)
        out.seek(0), err.seek(0)
        if p.returncode != 0:
            raise Failed(f"{' '.join(str(a) for a in args[:3])} … failed with {p.returncode}:\n{err.read()[-2000:]}")
        scale = 1e6 if sys.platform == "darwin" else 1e6 / 1024
        return out.read(), usage.ru_maxrss / scale


def figure(text, pattern):
    """The number that a pattern's group finds."""
    found = re.search(pattern, text)
    if not found:
        raise Failed(f"no {pattern!r} in {text[-500:]!r}")
    return float(found.group(1))


def train(model, data, out, method, compute, steps, sequences, length, sets=()):
    """Runs `graft train` on a text cut into rows; returns its metrics, one entry a step, and the peak in MB."""
    args = [GRAFT, "train", "--model", model, "--data", data, "-o", out, "--force", "--method", method]
    for pair in recipe(compute, length, sequences, steps) + list(sets):
        args += ["--set", pair]
    _, peak = run(args)
    return [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()], peak


def recipe(compute, length, sequences, steps):
    """The recipe that peers are measured with: rows in the order of the text, a constant rate, no clipping."""
    return [f"compute={compute}", "packing=stream", f"max_length={length}", f"batch_size={sequences}", f"max_steps={steps}",
            "lr_scheduler=constant", "max_grad_norm=0"]


def text(path, times=1):
    """Writes the text that all measurements read."""
    data = ROOT / "testdata" / "quickstart"
    path.write_text("".join((data / f"{name}.jsonl").read_text() for name in ("pirate", "json")) * times)


def processor():
    try:
        return re.search(r"model name\s*: (.*)", pathlib.Path("/proc/cpuinfo").read_text()).group(1)
    except (OSError, AttributeError):
        return platform.processor() or platform.machine()


def number(x, form):
    return "" if x is None else format(x, form)


def table(lines, left=1):
    """Prints rows of text in columns, the first of them to the left."""
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    for line in lines:
        print("  ".join(c.ljust(w) if i < left else c.rjust(w) for i, (c, w) in enumerate(zip(line, widths))).rstrip())


def save(name, result):
    """Writes a result to a file of the root folder."""
    (ROOT / name).write_text(json.dumps(result, indent=2, ensure_ascii=False) + "\n")
