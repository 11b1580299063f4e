"""Token ids of real texts by the tools that define them, for TestPeers.

    python peers.py make DIR NAME SOURCE TEXTS...
        writes DIR/NAME: the tokenizer SOURCE (a tokenizer.json, a GGUF file or a
        SentencePiece .model; or one of make_golden.py's as golden:NAME) and the ids of
        every line of the given texts (.txt, .json, .jsonl, .gz) and of those in texts/,
        by tokenizers, by llama.cpp or by sentencepiece.

    python peers.py check DIR OUT
        reads what TestPeers wrote to OUT: each tokenizer.json is loaded by tokenizers,
        each GGUF vocabulary by llama.cpp, and their ids are compared with those in DIR.

Needs: tokenizers==0.23.3, sentencepiece==0.2.3, gguf==0.19.0, llama-cpp-python==0.3.36.
"""

import base64
import gzip
import json
import pathlib
import sys
import tempfile

from tokenizers import Tokenizer

HERE = pathlib.Path(__file__).parent
KEYS = "model pre tokens token_type merges scores bos_token_id eos_token_id unknown_token_id padding_token_id add_space_prefix remove_extra_whitespaces".split()


def strings(value):
    if isinstance(value, str):
        yield value
    elif isinstance(value, (list, dict)):
        for v in value.values() if isinstance(value, dict) else value:
            yield from strings(v)


def texts(path):
    path = str(path)
    raw = (gzip.open(path) if path.endswith(".gz") else open(path, "rb")).read().decode()
    name = path.removesuffix(".gz")
    if name.endswith(".json"):
        found = list(strings(json.loads(raw)))
    elif name.endswith(".jsonl"):
        found = [s for line in raw.splitlines() if line for s in strings(json.loads(line))]
    else:
        found = [raw]
    for text in found:
        yield text
        if "\n" in text:
            yield from text.split("\n")


def by_tokenizers(file):
    t = Tokenizer.from_file(str(file))

    def encode(text, special):
        t.encode_special_tokens = not special
        return t.encode(text, add_special_tokens=False).ids

    return encode, lambda ids: t.decode(ids, skip_special_tokens=False)


def by_llama_cpp(file):
    import llama_cpp

    cpp = llama_cpp.Llama(model_path=str(file), vocab_only=True, verbose=False)
    return lambda text, special: cpp.tokenize(text.encode(), add_bos=False, special=special), None


def by_sentencepiece(file):
    import sentencepiece

    sp = sentencepiece.SentencePieceProcessor(model_file=str(file))
    return lambda text, special: None if special else sp.encode(text), None


def gguf_keys(file):
    import gguf

    fields = gguf.GGUFReader(file).fields
    keys = {k: fields["tokenizer.ggml." + k].contents() for k in KEYS if "tokenizer.ggml." + k in fields}
    if "tokenizer.ggml.precompiled_charsmap" in fields:
        keys["precompiled_charsmap"] = base64.b64encode(bytes(x & 255 for x in fields["tokenizer.ggml.precompiled_charsmap"].contents())).decode()
    if "general.name" in fields:
        keys["name"] = fields["general.name"].contents()
    return json.dumps(keys).encode()


def make(out, name, source, paths):
    folder = pathlib.Path(out, name)
    folder.mkdir(parents=True, exist_ok=True)
    if source.startswith("golden:"):
        import make_golden

        want = source.removeprefix("golden:")
        found = next((t for n, t in make_golden.tokenizers() if n == want), None)
        if found:
            (folder / "tokenizer.json").write_text(found.to_str())
            encode, decode = by_tokenizers(folder / "tokenizer.json")
        else:
            model = next(m for n, m, _ in make_golden.models_only() if n == want)
            (folder / "tokenizer.model").write_bytes(model)
            encode, decode = by_sentencepiece(folder / "tokenizer.model")
    elif source.endswith(".json"):
        (folder / "tokenizer.json").write_bytes(pathlib.Path(source).read_bytes())
        encode, decode = by_tokenizers(source)
    elif source.endswith(".gguf"):
        (folder / "vocab.json").write_bytes(gguf_keys(source))
        encode, decode = by_llama_cpp(source)
    else:
        (folder / "tokenizer.model").write_bytes(pathlib.Path(source).read_bytes())
        encode, decode = by_sentencepiece(source)
    all_texts = dict.fromkeys(t for p in [*paths, *sorted(HERE.glob("texts/*.txt")), *sorted(HERE.glob("texts/*.gz"))] for t in texts(p))
    with open(folder / "lines.jsonl", "w") as f:
        for text in all_texts:
            row = {"text": text}
            ids, plain = encode(text, True), encode(text, False)
            if ids is not None:
                row["ids"] = ids
            if plain != ids:
                row["plain"] = plain
            if decode and (decoded := decode(ids)) != text:
                row["decoded"] = decoded
            f.write(json.dumps(row) + "\n")


def write_gguf(keys, file):
    """A GGUF file of a vocabulary alone, as TestPeers spells it."""
    import gguf

    w = gguf.GGUFWriter(file, "llama")
    w.add_name(keys["Name"] or "x")
    w.add_tokenizer_model(keys["Model"])
    w.add_tokenizer_pre(keys["Pre"])
    w.add_token_list(keys["Tokens"])
    w.add_token_types(keys["Types"])
    if keys["Scores"]:
        w.add_token_scores([float(x) for x in keys["Scores"]])
    if keys["Merges"]:
        w.add_token_merges(keys["Merges"])
    for key, add in (("BOS", w.add_bos_token_id), ("EOS", w.add_eos_token_id), ("UNK", w.add_unk_token_id), ("PAD", w.add_pad_token_id)):
        if keys[key] >= 0:
            add(keys[key])
    w.add_add_bos_token(keys["AddBOS"])
    w.add_add_eos_token(keys["AddEOS"])
    w.add_add_space_prefix(keys["AddSpacePrefix"])
    if keys["Model"] == "t5":
        w.add_remove_extra_whitespaces(keys["RemoveExtraWhitespaces"])
        if keys["Charsmap"]:
            w.add_precompiled_charsmap(base64.b64decode(keys["Charsmap"]))
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.close()


def check(made, out, names):
    for folder in sorted(pathlib.Path(out).iterdir()):
        if names and folder.name not in names:
            continue
        rows = [json.loads(line) for line in open(pathlib.Path(made, folder.name, "lines.jsonl"))]
        peers = {}
        if (folder / "tokenizer.json").exists():
            peers["tokenizers"] = by_tokenizers(folder / "tokenizer.json")[0]
        if (folder / "vocab.json").exists():
            with tempfile.TemporaryDirectory() as t:
                write_gguf(json.loads((folder / "vocab.json").read_text()), t + "/vocab.gguf")
                peers["llama.cpp"] = by_llama_cpp(t + "/vocab.gguf")[0]
        for peer, encode in peers.items():
            different = []
            for row in rows:
                ids, plain = row.get("ids"), row.get("plain", row.get("ids"))
                if encode(row["text"], False) != plain or ids is not None and encode(row["text"], True) != ids:
                    different.append(row["text"])
            print(f"{folder.name:24} {peer:10} {len(rows)} texts, {len(different)} differences", *(ascii(t[:100]) for t in different[:2]), flush=True)


if __name__ == "__main__":
    if sys.argv[1] == "make":
        make(sys.argv[2], sys.argv[3], sys.argv[4], sys.argv[5:])
    else:
        check(sys.argv[2], sys.argv[3], sys.argv[4:])
