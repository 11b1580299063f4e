"""Model cards, and the general.* keys that gguf-py 0.19.0 takes from them.

usage: make.py OUT_FOLDER

  cards.json   a list of {"name", "card", "generation", "keys"}: README.md, generation_config.json ("" for
               none), and the keys that gguf.Metadata.load and set_gguf_meta_model write, with their types
"""
import json
import sys
import tempfile
from pathlib import Path

import gguf

CARDS = {
    "plain": ("---\nlicense: apache-2.0\nlanguage:\n- en\n- no\n---\n\n# Words\n", ""),
    "one language": ("---\nlicense: mit\nlanguage: de\nlicense_link: https://example.org/l\nlicense_name: other-license\n---\n", ""),
    "parents": (
        "---\nbase_model: HuggingFaceTB/SmolLM2-135M\ndatasets:\n- HuggingFaceTB/smoltalk\n- https://huggingface.co/datasets/x/y\n"
        "tags:\n- safetensors\n- chat\npipeline_tag: text-generation\n---\n", ""),
    "several parents": (
        "---\nbase_model:\n- meta-llama/Llama-3.2-1B\n- plain-name\n- https://huggingface.co/qwen/qwen2.5-0.5b\n- https://example.org/m\n"
        "- {name: Own, organization: Me, url: 'https://example.org/o'}\n---\n", ""),
    "texts": (
        "---\nmodel_name: A Name\nmodel_creator: Somebody\nversion: v2.1\norganization: An Org\ndescription: 'Two: words'\n"
        "finetune: chat\nbasename: base\nsize_label: 7B\nurl: https://example.org\nmodel_doi: 10.1/2\nmodel_repo_url: https://example.org/r\n---\n", ""),
    "licenses": ("---\nlicense:\n- mit\n- apache-2.0\nlanguages:\n- fr\nlanguage: it\n---\n", ""),
    "none": ("# No front matter\n", ""),
    "sampling": ("---\nlicense: mit\n---\n", '{"do_sample": true, "temperature": 0.6, "top_k": 20, "top_p": 0.95, "min_p": 0.05, "eos_token_id": [1, 2]}'),
}


class Collect:
    """Stands in for GGUFWriter: it keeps what Metadata adds."""

    def __init__(self):
        self.keys = {}

    def add_string(self, key, value):
        self.keys[key] = ["string", value]

    def add_uint32(self, key, value):
        self.keys[key] = ["uint32", value]

    def add_int32(self, key, value):
        self.keys[key] = ["int32", value]

    def add_float32(self, key, value):
        self.keys[key] = ["float32", value]

    def add_array(self, key, value):
        self.keys[key] = ["array", list(value)]

    def __getattr__(self, name):
        method = getattr(gguf.GGUFWriter, name)
        return lambda *args: method(self, *args)


cases = []
for name, (card, generation) in CARDS.items():
    with tempfile.TemporaryDirectory() as parent:
        folder = Path(parent) / "folder"
        folder.mkdir()
        (folder / "README.md").write_text(card)
        if generation:
            (folder / "generation_config.json").write_text(generation)
        collect = Collect()
        gguf.Metadata.load(model_path=folder).set_gguf_meta_model(collect)
        cases.append({"name": name, "card": card, "generation": generation, "keys": collect.keys})
Path(sys.argv[1], "cards.json").write_text(json.dumps(cases, indent=1) + "\n")
