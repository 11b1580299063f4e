"""Goldens of training data: what TRL makes of rows, token by token, and transformers' learning rates.

usage: make.py OUT_FOLDER

Made with torch 2.15.0, transformers 5.23.0, trl 1.16.0, datasets 5.2.0, tokenizers 0.23.3. Writes

  tokenizer.json    a small byte-level BPE trained on the rows, with ChatML's special tokens
  sft.json          per form of rows: the rows, and for each the ids and which of them carry a loss
  dpo.json          the same for preferences: ids of the prompt, of the chosen and of the rejected answer
  tools.json        rows with tools, calls and reasoning, through ../chat/steps.jinja: sft and dpo as above
  rates.json        learning rates of each schedule, step by step

The chat template is ChatML with generation blocks where nothing else is said.
"""
import json
import sys
import tempfile
from pathlib import Path

import torch
from datasets import Dataset
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast, get_scheduler
from trl import DPOConfig, DPOTrainer, SFTConfig, SFTTrainer

TEMPLATE = (
    "{%- for turn in messages -%}{{- '<|im_start|>' ~ turn.role ~ '\\n' -}}{%- if turn.role == 'assistant' -%}"
    "{%- generation -%}{{- turn.content ~ '<|im_end|>' -}}{%- endgeneration -%}{%- else -%}{{- turn.content ~ '<|im_end|>' -}}"
    "{%- endif -%}{{- '\\n' -}}{%- endfor -%}{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\\n' -}}{%- endif -%}"
)
TEXTS = [
    "The river runs to the sea, and the sea gives back the rain.",
    "Was kostet das Brötchen? Zwei Euro fünfzig, bitte schön!",
    "日本語の文章も、絵文字 🙂 も同じように扱う。",
    "def add(a, b):\n    return a + b\n\n\nprint(add(1, 22))",
    "  leading spaces, trailing spaces  ",
    "Numbers 1234567890 and <|im_end|> spelled inside a text",
]


def turn(role, content):
    return dict(role=role, content=content)


def rows():
    t = TEXTS
    n = len(t)
    return dict(
        text=[dict(text=x) for x in t],
        completion=[dict(prompt=t[i] + (" " if i % 2 else ""), completion=t[(i + 1) % n]) for i in range(n)]
        + [dict(prompt="the ri", completion="ver runs"), dict(prompt="x", completion="")],
        completion_chat=[dict(prompt=[turn("user", t[i])], completion=[turn("assistant", t[(i + 1) % n])]) for i in range(n)],
        messages=[dict(messages=[turn("system", t[i]), turn("user", t[(i + 1) % n]), turn("assistant", t[(i + 2) % n]),
                                 turn("user", t[(i + 3) % n]), turn("assistant", t[(i + 4) % n])]) for i in range(n)],
        conversations=[{"conversations": [{"from": "human", "value": t[i]}, {"from": "gpt", "value": t[(i + 1) % n]}]} for i in range(n)],
    ), dict(
        strings=[dict(prompt=t[i], chosen=" " + t[(i + 1) % n], rejected=t[(i + 2) % n]) for i in range(n)],
        implicit=[dict(chosen=x + " yes, of course", rejected=x + " no, never") for x in t] + [dict(chosen="river sea", rejected="river rain")],
        messages=[dict(prompt=[turn("user", t[i])], chosen=[turn("assistant", t[(i + 1) % n])], rejected=[turn("assistant", t[(i + 2) % n])])
                  for i in range(n)],
        implicit_messages=[dict(chosen=[turn("user", t[i]), turn("assistant", t[(i + 1) % n])],
                                rejected=[turn("user", t[i]), turn("assistant", t[(i + 2) % n])]) for i in range(n)],
    )


def tool_rows():
    tool = {"type": "function", "function": {"name": "weather", "description": "The weather at a place.", "parameters": {
        "type": "object", "properties": {"place": {"type": "string"}, "days": {"type": "integer"}}, "required": ["place"]}}}
    call = {"type": "function", "id": "c1", "function": {"name": "weather", "arguments": {"place": "Köln", "days": 2}}}
    ask, calls = turn("user", TEXTS[1]), {"role": "assistant", "tool_calls": [call]}
    answer = {"role": "tool", "name": "weather", "tool_call_id": "c1", "content": "21 °C 🙂"}
    reasoned = {**turn("assistant", TEXTS[0]), "reasoning_content": TEXTS[2]}
    return [
        dict(messages=[ask, calls, answer, turn("assistant", TEXTS[0])], tools=[tool]),
        dict(messages=[turn("system", TEXTS[4]), ask, {**calls, "content": TEXTS[3]}, answer, answer, reasoned, turn("user", "?"), turn("assistant", "!")], tools=json.dumps([tool, tool])),
        dict(messages=[ask, reasoned]),
        dict(messages=[ask, {**reasoned, "reasoning_content": None, "tool_calls": None}], tools=None),
        dict(messages=[turn("user", "a"), reasoned], chat_template_kwargs=dict(enable_thinking=False)),
        dict(prompt=[ask, calls, answer], completion=[turn("assistant", TEXTS[0])], tools=[tool], chat_template_kwargs=dict(enable_thinking=False)),
        dict(prompt=[ask], completion=[calls, answer, reasoned], tools=[tool]),
    ], [
        dict(prompt=[ask], chosen=[calls], rejected=[turn("assistant", TEXTS[0])], tools=[tool]),
        dict(prompt=[ask, calls, answer], chosen=[reasoned], rejected=[turn("assistant", TEXTS[5])], tools=json.dumps([tool]), chat_template_kwargs=dict(enable_thinking=True)),
    ]


def chatml(row):
    """TRL renames the fields of ShareGPT rows but not the speakers."""
    if "conversations" not in row:
        return row
    return dict(messages=[turn({"human": "user", "gpt": "assistant"}[m["from"]], m["value"]) for m in row["conversations"]])


def tokenizer(path):
    tok = Tokenizer(models.BPE())
    tok.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    tok.decoder = decoders.ByteLevel()
    tok.train_from_iterator(TEXTS * 3, trainers.BpeTrainer(
        vocab_size=420, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), special_tokens=["<|im_start|>", "<|im_end|>"]))
    tok.save(str(path))
    return PreTrainedTokenizerFast(tokenizer_object=tok, eos_token="<|im_end|>", pad_token="<|im_end|>", chat_template=TEMPLATE)


def model(tok):
    return LlamaForCausalLM(LlamaConfig(hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2, vocab_size=len(tok)))


def common(**kw):
    return dict(output_dir=tempfile.mkdtemp(), report_to=[], use_cpu=True, bf16=False, max_length=None, **kw)


def write(path, value):
    path.write_text(json.dumps(value, ensure_ascii=False, separators=(",", ":")) + "\n")


if __name__ == "__main__":
    torch.manual_seed(0)
    out = Path(sys.argv[1])
    out.mkdir(parents=True, exist_ok=True)
    tok = tokenizer(out / "tokenizer.json")
    sft, dpo = rows()
    result = {}
    for name, data in sft.items():
        chat = name in ("messages", "conversations")
        trainer = SFTTrainer(model=model(tok), args=SFTConfig(**common(assistant_only_loss=chat)), processing_class=tok,
                             train_dataset=Dataset.from_list([chatml(r) for r in data]))
        made = list(trainer.train_dataset)
        masks = [[int(x != -100) for x in m["labels"]] for m in made]
        result[name] = [dict(row=r, ids=m["input_ids"], loss=k) for r, m, k in zip(data, made, masks, strict=True)]
    write(out / "sft.json", result)
    result = {}
    for name, data in dpo.items():
        trainer = DPOTrainer(model=model(tok), ref_model=model(tok), args=DPOConfig(**common()), train_dataset=Dataset.from_list(data), processing_class=tok)
        result[name] = [dict(row=r, prompt=m["prompt_ids"], chosen=m["chosen_ids"], rejected=m["rejected_ids"])
                        for r, m in zip(data, trainer.train_dataset, strict=True)]
    write(out / "dpo.json", result)
    # A trainer each, for rows of one table would get each other's fields.
    tok.chat_template = (Path(__file__).parent.parent / "chat" / "steps.jinja").read_text()
    result = dict(sft=[], dpo=[])
    sft, dpo = tool_rows()
    for row in sft:
        [m] = SFTTrainer(model=model(tok), args=SFTConfig(**common(assistant_only_loss="messages" in row)), processing_class=tok, train_dataset=Dataset.from_list([row])).train_dataset
        result["sft"].append(dict(row=row, ids=m["input_ids"], loss=[int(x != -100) for x in m["labels"]]))
    for row in dpo:
        [m] = DPOTrainer(model=model(tok), ref_model=model(tok), args=DPOConfig(**common()), train_dataset=Dataset.from_list([row]), processing_class=tok).train_dataset
        result["dpo"].append(dict(row=row, prompt=m["prompt_ids"], chosen=m["chosen_ids"], rejected=m["rejected_ids"]))
    write(out / "tools.json", result)
    rates = {}
    for name, kind in dict(constant="constant_with_warmup", linear="linear", cosine="cosine").items():
        opt = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=3e-4)
        s = get_scheduler(kind, opt, num_warmup_steps=5, num_training_steps=20)
        rates[name] = []
        for _ in range(20):
            rates[name].append(opt.param_groups[0]["lr"])
            opt.step()
            s.step()
    write(out / "rates.json", rates)
