"""Asks huggingface_hub, for internal/hub to compare.

Needs huggingface_hub 2.4.0 (Python 3.11).

    python make.py

writes globs.json: which paths a pattern selects by filter_repo_objects. With

    python make.py serve

it is the peer of TestAgainstPeer: each line of standard input is a JSON object
{"endpoint", "cache", "repo", "revision", "offline", "include", "local"}, and
each line of output the folder that snapshot_download returns, or {"error"}.
"""
import itertools
import json
import os
import pathlib
import random
import subprocess
import sys

HERE = pathlib.Path(__file__).parent

PATHS = ["a", "b", "model.safetensors", "onnx/model.onnx", "a/b/c.json", "config.json", ".gitattributes", "-", "]", "[", "!", "^", "a]b", "a-b", "é.txt", "x\\y", "x/y", "A", "[a]",
         "model-00001-of-00002.safetensors", "", "\n", "a\nb", "𝔘/b", "z", "a*b", "a?b"]
PATTERNS = ["*", "?", "*.json", "onnx/", "onnx/*", "*/*", "a", "[a]", "[!a]", "[ab]*", "[]]", "[!]]", "[]", "[!]", "[", "[a", "a[", "[a-c]", "[c-a]", "[!c-a]", "[a-]", "[-a]", "[--a]", "[a-c-e]", "[^a]",
            "[[]a[]]", "[[]", "[!]a]", "[a-z]*", "model-0000?-of-*", "**", "*a*b*", "a\\b", "x\\y", "x/y", "\\[", "[!-]", "[a\\]", "*.safetensors", "é*", "", "[b-ac-d]", "[b-a-d]", "[a-b-c]?", "*\n*", "?/?", "[!a-z]*", "[]-a]", "[]-]"]


def selected(pattern, path):
    from huggingface_hub.utils import filter_repo_objects
    return bool(list(filter_repo_objects([path], allow_patterns=[pattern])))


def globs():
    r = random.Random(7)
    made = ["".join(r.choice("ab-]![*?/^") for _ in range(r.randint(1, 7))) for _ in range(400)]
    words = ["".join(w) for n in (1, 2) for w in itertools.product("ab-]!/", repeat=n)]
    out = [dict(pattern=p, paths=PATHS, selected=[selected(p, x) for x in PATHS]) for p in PATTERNS]
    for p in made:
        some = r.sample(words, 8)
        out.append(dict(pattern=p, paths=some, selected=[selected(p, x) for x in some]))
    (HERE / "globs.json").write_text("[\n" + ",\n".join(json.dumps(x, ensure_ascii=False) for x in out) + "\n]\n", encoding="utf-8")
    print(len(out), "patterns")


def serve():
    """One process each, for huggingface_hub reads the environment when it is imported."""
    for line in sys.stdin:
        done = subprocess.run([sys.executable, __file__, "one", line], capture_output=True, text=True,
                              env={**os.environ, "HF_HUB_OFFLINE": "1" if json.loads(line)["offline"] else "0", "HF_HUB_DISABLE_TELEMETRY": "1", "HF_HUB_DISABLE_XET": "1"})
        print(done.stdout.strip() or json.dumps(dict(error=done.stderr[-1500:])), flush=True)


def one(line):
    import huggingface_hub
    ask = json.loads(line)
    try:
        path = huggingface_hub.snapshot_download(ask["repo"], revision=ask["revision"], endpoint=ask["endpoint"], cache_dir=ask["cache"], allow_patterns=ask.get("include") or None,
                                                 local_dir=ask.get("local") or None, token=False)
        print(json.dumps(dict(path=path)))
    except Exception as e:
        print(json.dumps(dict(error=f"{type(e).__name__}: {e}")))


if __name__ == "__main__":
    dict(serve=serve, one=lambda: one(sys.argv[2])).get(sys.argv[1] if len(sys.argv) > 1 else "", globs)()
