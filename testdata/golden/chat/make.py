"""Renders chat templates with transformers' apply_chat_template, for internal/chat to compare.

Needs transformers 5.23.0 and jinja2 3.1.6 (Python 3.11).

    python make.py OUT

writes OUT/expected.json from the templates here (*.jinja, our own, in the
shapes of the families they are named after) and the statements and
expressions of features.txt: the golden files.

    python make.py OUT --templates DIR     real templates instead
    python make.py OUT --random N [SEED]   N random expressions instead

write folders that are not kept here: the templates are not ours. Point
GRAFT_TEMPLATES at one and run

    go test -run TestTemplates ./internal/chat/

Templates to try are inside the trl and axolotl wheels (trl/chat_templates,
axolotl/utils/chat_templates/templates), in models/templates of llama.cpp's
sources, and beside a checkpoint as chat_template.jinja.
"""
import argparse
import datetime
import json
import pathlib
import random
import re

import jinja2
from tokenizers import Tokenizer, models
from transformers import PreTrainedTokenizerFast
from transformers.utils import chat_template_utils as ctu

NOW = datetime.datetime(2026, 3, 7, 9, 5, 2)


class Clock(datetime.datetime):
    @classmethod
    def now(cls, tz=None):
        return NOW


ctu.datetime = Clock

TOOLS = [
    {"type": "function", "function": {"name": "get_weather", "description": "Gets the weather <now> & \"later\".",
     "parameters": {"type": "object", "properties": {
         "city": {"type": "string", "description": "The city", "enum": ["Paris", "Köln"]},
         "days": {"type": "integer", "default": 3},
         "unit": {"type": ["string", "null"]},
         "where": {"type": "array", "items": {"type": "object", "properties": {"x": {"type": "number"}}}}},
         "required": ["city"]}, "return": {"type": "string"}}},
    {"type": "function", "function": {"name": "noop", "description": "Does nothing.",
     "parameters": {"type": "object", "properties": {}}}},
]


def msg(role, content, **extra):
    return {"role": role, "content": content, **extra}


CALL = {"id": "call_0001", "type": "function", "function": {
    "name": "get_weather", "arguments": {"city": "Köln", "days": 2, "deep": {"a": [1, 2.5, None, True]}, "s": "it's \"x\"\n"}}}
CALL9 = {"id": "abcdefghi", "type": "function", "function": {"name": "noop", "arguments": {}}}
CALL_TEXT = {"id": "abcdefghi", "type": "function", "function": {"name": "noop", "arguments": "{\"a\": 1}"}}

CONVERSATIONS = {
    "user": dict(messages=[msg("user", "Hello there")]),
    "prompt": dict(messages=[msg("user", "Hello there")], add_generation_prompt=True),
    "system": dict(messages=[msg("system", "Be brief."), msg("user", "Hi"), msg("assistant", "Hello!")]),
    "multi": dict(messages=[msg("system", "Be brief."), msg("user", "One"), msg("assistant", "1"), msg("user", "Two"),
                            msg("assistant", "2"), msg("user", "Three")], add_generation_prompt=True),
    "nosystem": dict(messages=[msg("user", "One"), msg("assistant", "1"), msg("user", "Two"), msg("assistant", "2")]),
    "tools": dict(messages=[msg("user", "Weather?")], tools=TOOLS, add_generation_prompt=True),
    "toolsystem": dict(messages=[msg("system", "Use tools."), msg("user", "Weather?")], tools=TOOLS),
    "toolcall": dict(messages=[msg("user", "Weather?"), msg("assistant", "", tool_calls=[CALL]),
                               msg("tool", "{\"t\": 21}", name="get_weather", tool_call_id="call_0001"),
                               msg("assistant", "It is 21°.")], tools=TOOLS),
    "toolcall9": dict(messages=[msg("user", "Weather?"), msg("assistant", "Wait.", tool_calls=[CALL9, CALL9]),
                                msg("tool", "ok", name="noop", tool_call_id="abcdefghi"),
                                msg("tool", "ok2", name="noop", tool_call_id="abcdefghi"), msg("user", "and?")],
                      tools=TOOLS, add_generation_prompt=True),
    "toolcalltext": dict(messages=[msg("user", "Weather?"), msg("assistant", None, tool_calls=[CALL_TEXT]),
                                   msg("tool", "ok", name="noop", tool_call_id="abcdefghi")], tools=TOOLS),
    "unicode": dict(messages=[msg("user", "你好 👋🏽 é ß Σας \u00a0"), msg("assistant", "ñandú 𝔘 \u2028 ok")]),
    "empty": dict(messages=[msg("user", ""), msg("assistant", "")]),
    "spaces": dict(messages=[msg("system", "  sys \n"), msg("user", "\n  lead and trail \t\n"), msg("assistant", " \n answer \n\n ")]),
    "none": dict(messages=[msg("user", "Hi"), msg("assistant", None)]),
    "reasoning": dict(messages=[msg("user", "2+2?"), msg("assistant", "4", reasoning_content="two and two\n"),
                                msg("user", "3+3?"), msg("assistant", "6", reasoning_content=" three ")]),
    "think": dict(messages=[msg("user", "2+2?"), msg("assistant", "<think>\nhm\n</think>\n\n4"), msg("user", "3+3?")],
                  add_generation_prompt=True),
    "nothink": dict(messages=[msg("user", "2+2?")], add_generation_prompt=True, vars=dict(enable_thinking=False)),
    "dothink": dict(messages=[msg("user", "2+2?")], add_generation_prompt=True, vars=dict(enable_thinking=True, thinking=True)),
    "parts": dict(messages=[msg("user", [{"type": "text", "text": "Look "}, {"type": "image"}, {"type": "text", "text": "here"}]),
                            msg("assistant", [{"type": "text", "text": "I see"}])]),
    "absent": dict(messages=[msg("user", "Hi"), {"role": "assistant", "tool_calls": [CALL9]}, {"content": "ok", "role": "tool", "name": "noop"}]),
    "twice": dict(messages=[msg("user", "a"), msg("user", "b"), msg("assistant", "c"), msg("assistant", "d")]),
    "assistantfirst": dict(messages=[msg("assistant", "hello"), msg("user", "b")]),
    "lone": dict(messages=[msg("system", "only")]),
    "nothing": dict(messages=[]),
    "documents": dict(messages=[msg("user", "Cite.")], documents=[{"title": "T", "text": "some text"}], add_generation_prompt=True),
    "developer": dict(messages=[msg("developer", "Rules"), msg("user", "Hi")], add_generation_prompt=True),
    "flattools": dict(messages=[msg("system", "S"), msg("user", "Weather?")], tools=[t["function"] for t in TOOLS], add_generation_prompt=True),
    "notools": dict(messages=[msg("user", "Hi")], tools=[], documents=[], add_generation_prompt=True),
    "userpartstools": dict(messages=[msg("system", [{"type": "text", "text": "Use tools."}]), msg("user", [{"type": "text", "text": "Weather?"}])],
                           tools=TOOLS[:1], add_generation_prompt=True),
    "flatcall": dict(messages=[msg("user", "Go"), msg("assistant", "", tool_calls=[CALL["function"]]), msg("tool", {"t": 21, "ok": True}),
                               msg("assistant", "Done.")], tools=TOOLS),
    "parallel": dict(messages=[msg("system", "S"), msg("user", "Both"), msg("assistant", None, tool_calls=[CALL, {**CALL9, "id": "abcdefghj"}]),
                               msg("tool", "21", tool_call_id="call_0001", name="get_weather"), msg("tool", "none", tool_call_id="abcdefghj", name="noop"),
                               msg("assistant", "So."), msg("user", "Thanks"), msg("assistant", "Welcome")], tools=TOOLS),
    "nextcall": dict(messages=[msg("user", "a"), msg("assistant", "", tool_calls=[CALL9]), msg("tool", "1", tool_call_id="abcdefghi", name="noop"),
                               msg("assistant", "", tool_calls=[CALL9], reasoning_content="again"), msg("tool", "2", tool_call_id="abcdefghi", name="noop")],
                     tools=TOOLS, add_generation_prompt=True),
    "oddcall": dict(messages=[msg("user", "a"), msg("assistant", "b", tool_calls=[{"type": "function", "id": "123456789", "function": {
        "name": "noop", "arguments": {"zero": 0, "no": None, "f": 1e22, "s": "", "l": [], "d": {}, "u": "\u00e9\u2028<&>'", "t": False}}}]),
        msg("tool", "", tool_call_id="123456789")]),
    "toolparts": dict(messages=[msg("user", "a"), msg("assistant", "", tool_calls=[CALL9]),
                                msg("tool", [{"type": "text", "text": "one"}, {"type": "text", "text": "two"}], tool_call_id="abcdefghi", name="noop")],
                      tools=TOOLS, add_generation_prompt=True),
    "ipython": dict(messages=[msg("user", "a"), msg("assistant", "", tool_calls=[CALL]), msg("ipython", {"output": [1, 2]}), msg("assistant", "3")]),
    "function": dict(messages=[msg("user", "a"), msg("assistant", "", function_call={"name": "f", "arguments": "{}"}), msg("function", "1", name="f")]),
    "media": dict(messages=[msg("user", [{"type": "image", "image": "x.png"}, {"type": "image_url", "image_url": {"url": "u"}}, {"type": "audio"},
                                         {"type": "video"}, {"type": "text", "text": " What? "}])], add_generation_prompt=True),
    "systemparts": dict(messages=[msg("system", [{"type": "text", "text": "Be brief."}]), msg("user", [{"type": "text", "text": "Hi"}]),
                                  msg("assistant", [{"type": "text", "text": "Hello"}])], add_generation_prompt=True),
    "emptyparts": dict(messages=[msg("user", []), msg("assistant", [])], add_generation_prompt=True),
    "numbers": dict(messages=[msg("user", 5), msg("assistant", True)]),
    "named": dict(messages=[msg("user", "Hi", name="Ann", weight=0.5), msg("assistant", "Yo", name="bot", prefix=True, training=True)]),
    "thinkparts": dict(messages=[msg("user", "a"), msg("assistant", [{"type": "thinking", "thinking": "hm"}, {"type": "text", "text": "b"}]),
                                 msg("user", "c")], add_generation_prompt=True),
    "thinkcall": dict(messages=[msg("user", "a"), msg("assistant", "", thinking="which?", tool_calls=[CALL]),
                                msg("tool", "r", name="get_weather", tool_call_id="call_0001"), msg("assistant", "b", reasoning="so"), msg("user", "c"),
                                msg("assistant", "<think>x</think>y</think>z")], tools=TOOLS),
    "openthink": dict(messages=[msg("user", "a"), msg("assistant", "<think>\nnot closed"), msg("user", "/no_think b")], add_generation_prompt=True),
    "systemlater": dict(messages=[msg("user", "a"), msg("system", "b"), msg("user", "c"), msg("assistant", "d")]),
    "systemtwice": dict(messages=[msg("system", "a"), msg("system", "b"), msg("user", "c")], add_generation_prompt=True),
    "systemempty": dict(messages=[msg("system", ""), msg("user", "c")], add_generation_prompt=True),
    "systemthink": dict(messages=[msg("system", "Do. /no_think\n/system_override"), msg("user", "c")], add_generation_prompt=True),
    "usernone": dict(messages=[msg("user", None), msg("assistant", "b")]),
    "otherrole": dict(messages=[msg("critic", "a"), msg("user", "b")], add_generation_prompt=True),
    "citations": dict(messages=[msg("user", "a"), msg("assistant", "b"), msg("user", "c")], add_generation_prompt=True,
                      documents=[{"doc_id": "1", "title": "T", "text": "text\n"}, {"title": "Ü", "contents": "c", "url": None, "n": 1.0}],
                      vars=dict(citation_mode="accurate", controls={"citations": True, "hallucinations": False, "length": "short"})),
    "builtins": dict(messages=[msg("system", "S"), msg("user", "a")], tools=TOOLS, add_generation_prompt=True,
                     vars=dict(builtin_tools=["brave_search", "code_interpreter", "browser", "python"], tools_in_user_message=False,
                               date_string="1 Jan 2020", environment="ipython", custom_tools=TOOLS[:1])),
    "switches": dict(messages=[msg("user", "a"), msg("assistant", "b", reasoning_content="r"), msg("user", "c")], add_generation_prompt=True,
                     vars=dict(reasoning_effort="high", model_identity="Me", keep_thinking=True, preserve_thinking=True, clear_thinking=False, xml_tools=["a"],
                               python_tools=["def f(): pass"], system_message="SM", pad_token="<pad>", unk_token="<unk>", add_vision_id=True, thinking_budget=512,
                               low_effort=True, force_reasoning=True, skip_thinking=True, json_schema='{"a": 1}')),
    "switchesoff": dict(messages=[msg("system", "s"), msg("user", "a")], tools=TOOLS, add_generation_prompt=True,
                        vars=dict(reasoning_effort="none", enable_thinking=False, thinking=False, thinking_budget=0, keep_thinking=False, add_default_system_prompt=False)),
    "continue": dict(messages=[msg("user", "a"), msg("assistant", "The answer")], continue_final_message=True),
    "continuespace": dict(messages=[msg("system", "s"), msg("user", "a"), msg("assistant", " é is \n")], continue_final_message=True),
    "continueparts": dict(messages=[msg("user", "a"), msg("assistant", [{"type": "text", "text": "One"}, {"type": "text", "text": "two "}, {"type": "image"}])],
                          continue_final_message=True),
    "continueuser": dict(messages=[msg("user", "unfinished")], continue_final_message=True),
    "continueempty": dict(messages=[msg("user", "a"), msg("assistant", "")], continue_final_message=True),
    "continuenone": dict(messages=[msg("user", "a"), msg("assistant", None)], continue_final_message=True),
    "continuenoparts": dict(messages=[msg("user", "a"), msg("assistant", [{"type": "image"}])], continue_final_message=True),
    "continuenothing": dict(messages=[], continue_final_message=True),
    "continuethink": dict(messages=[msg("user", "a"), msg("assistant", "", reasoning_content="so far ")], continue_final_message="reasoning_content"),
    "continuecall": dict(messages=[msg("user", "a"), msg("assistant", "I call", tool_calls=[CALL9])], tools=TOOLS, continue_final_message=True),
    "long": dict(messages=[m for i in range(12) for m in (msg("user", f"q{i}\n"), msg("assistant", f"  a{i} "))], add_generation_prompt=True),
    "tags": dict(messages=[msg("user", "{{ x }} {% if %} <|im_end|> <b>&amp;</b>"), msg("assistant", "{# c #}")]),
}


VALUES = {
    "i": 7, "n": -3, "z": 0, "big": 123456789012345678901234567890, "f": 2.5, "g": -0.0, "h": 1e20, "t": True, "x": None,
    "s": "Hello, World", "e": "", "w": "  padded\ttext \n", "q": "it's \"quoted\" <b>&", "m": "line one\nline two\n\nlast",
    "u8": "na\u00efve \u4f60\u597d \U0001f44b", "num": "42", "dec": "3.75",
    "l": [3, 1, 2], "ls": ["b", "A", "c", "a"], "lm": [1, "a", None, 2.0, True, [1], {"k": 1}], "le": [],
    "d": {"b": 1, "a": 2, "items": "own", "c d": [1, 2]}, "de": {}, "p": [[1, "x"], [2, "y"]],
    "rows": [{"name": "Zoe", "age": 31, "tags": ["x"]}, {"name": "adam", "age": 25, "tags": []}, {"name": "Bob", "age": 31}],
}


TOKENIZER = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.WordLevel({"a": 0})), bos_token="<s>", eos_token="</s>")


def render(source, conv, tracked=False):
    """The text is apply_chat_template's. Spans in characters come from the function below it, which leaves to its caller
    that fields of a message that are null are dropped, and takes no messages."""
    given = dict(tools=conv.get("tools"), documents=conv.get("documents"), chat_template=source,
                 add_generation_prompt=conv.get("add_generation_prompt", False), **conv.get("vars", {}))
    messages = json.loads(json.dumps(conv["messages"]))
    continued = conv.get("continue_final_message", False)
    below = [[{k: v for k, v in m.items() if v is not None} for m in messages]]
    if messages:
        text = TOKENIZER.apply_chat_template(messages, tokenize=False, continue_final_message=continued, **given)
    given = {**TOKENIZER.special_tokens_map, **given}
    if tracked or not messages:
        [again], spans = ctu.render_jinja_template(below, return_assistant_tokens_mask=tracked, continue_final_message=continued, **given)
        assert not messages or again == text
        return again, spans[0] if tracked else None
    return text, None


def outcome(source, conv):
    tracked = re.search(r"\{%[-+]?\s*generation", source) and not conv.get("continue_final_message")
    case = {}
    try:
        text, spans = render(source, conv, tracked)
        text.encode()
        case["text"] = text
        if tracked:
            case["spans"] = [[len(text[:a].encode()), len(text[:b].encode())] for a, b in spans if b > a]
    except Exception as e:
        case["error"] = f"{type(e).__name__}: {e}"
        case["raised"] = type(e) is jinja2.exceptions.TemplateError
    return case


def from_templates(paths, out):
    cases = []
    for path in sorted(paths):
        source = path.read_text(encoding="utf-8")
        target = out / path.name
        if target.resolve() != path.resolve():
            target.write_text(source, encoding="utf-8")
        for name, conv in CONVERSATIONS.items():
            cases.append(dict(template=path.name, conversation=name, **outcome(source, conv)))
    return cases


def from_sources(sources):
    conv = dict(messages=[msg("user", "Hi")], vars=VALUES)
    return [dict(source=s, conversation="values", **outcome(s, conv)) for s in sources]


def features(path):
    """Sources are separated by lines of ====; # lines before them are comments."""
    for block in path.read_text(encoding="utf-8").split("\n====\n"):
        lines = block.split("\n")
        while lines and lines[0].startswith("# "):
            lines.pop(0)
        if len(lines) == 1 and not ("{{" in block or "{%" in block or "{#" in block):
            continue
        yield "\n".join(lines)


class Expressions:
    """Random expressions over VALUES, most of them sensible."""

    names = list(VALUES) + ["nope", "rows[0]", "rows[1].age", "d.a", "d['items']", "l[-1]", "rows[2].tags", "messages"]
    literals = ["0", "1", "-1", "2", "3", "10", "2.0", "0.5", "1e3", "1_000", "0x1f", "'a'", "'b,c'", "','", "' '", "'%s-%d'", "'{}|{}'", "''",
                "'\\n\\t\\x41\\u4f60\\q'", "true", "false", "none", "[]", "{}", "()", "(1,)", "[1, 'a']", "{'a': 1, 2: 'b'}", "range(4)"]
    binary = ["+", "-", "*", "/", "//", "%", "~", "==", "!=", "<", "<=", ">", ">=", "in", "not in", "and", "or"]  # no **: Python would compute big ** big
    filters = ["length", "upper", "lower", "trim", "title", "capitalize", "string", "list", "first", "last", "sort", "sort(reverse=true)",
               "sort(attribute='age')", "sort(attribute='name', case_sensitive=true)", "unique|list", "join", "join(', ')", "join('-', attribute='name')", "default('D')",
               "default('D', true)", "int", "float", "int(5)", "int(base=16)", "abs", "round", "round(1)", "round(-1)", "round(1, 'floor')", "tojson", "tojson(indent=2)",
               "tojson(sort_keys=true)", "tojson(ensure_ascii=true)", "tojson(separators=(',', ':'))", "items|list", "dictsort", "dictsort(by='value')", "reverse|list",
               "replace('a', 'bb')", "replace('l', 'L', 1)", "map('upper')|list", "map(attribute='name')|list", "map(attribute='nope', default='-')|list",
               "select|list", "reject('none')|list", "select('string')|list", "selectattr('age', '>', 26)|list", "selectattr('tags')|map(attribute='name')|list",
               "rejectattr('name', 'equalto', 'Bob')|list", "groupby('age')", "batch(2)|list", "batch(2, 'f')|list", "slice(2)|list", "sum", "sum(attribute='age')",
               "min", "max", "indent", "indent(2, true)", "truncate(8)", "truncate(8, true, '~')", "wordcount", "center(12)", "format(1, 2)", "safe", "e", "attr('a')", "urlencode",
               "count", "d('x')", "reverse", "filesizeformat"]
    tests = ["defined", "undefined", "none", "string", "number", "integer", "float", "boolean", "mapping", "iterable", "sequence", "true", "false", "odd", "even",
             "divisibleby 3", "divisibleby(2)", "in [1, 'a']", "eq 1", "ne 'a'", "gt 1", "lt 2", "sameas none", "callable", "lower", "upper", "escaped", "equalto(7)", "filter", "in 'abc'"]
    methods = ["strip()", "strip('d ')", "lstrip()", "rstrip()", "upper()", "lower()", "title()", "capitalize()", "swapcase()", "split()", "split(' ')", "split(',', 1)", "split('l')[0]",
               "split(maxsplit=1)", "rsplit(None, 1)", "rsplit('l', 1)", "splitlines()", "splitlines(true)", "startswith('He')", "startswith(('x', 'H'))", "endswith('d')", "replace('l', '')", "replace('', '.')",
               "replace('o', '0', 1)", "find('o')", "rfind('o')", "find('o', 5)", "index('o')", "count('l')", "join(['a', 'b'])", "join(ls)", "partition(', ')", "rpartition('o')", "isdigit()", "isalpha()",
               "isupper()", "islower()", "isspace()", "isalnum()", "istitle()", "isnumeric()", "isidentifier()", "zfill(6)", "center(9, '*')", "ljust(8)", "rjust(8)", "expandtabs(4)", "removeprefix('He')", "removesuffix('ld')",
               "casefold()", "format(1, 'b', x='k')", "items()", "keys()", "values()|list", "items()|list", "get('a')", "get('zz')", "get('zz', 5)", "copy()", "pop()", "append(1)", "update(a=1)", "index(2)", "count(1)", "nope", "nope.deeper", "partition('zz')"]
    subscripts = ["[0]", "[-1]", "[1:]", "[:-1]", "[::-1]", "[1:3]", "[-2:]", "[::2]", "[5:1:-1]", "[9]", "['a']", ".a", ".name", "[none:2]", "['length']", "[:0]", "[true]", "[1:'a']", ".0"]

    def __init__(self, seed):
        self.r = random.Random(seed)

    def expr(self, depth):
        r = self.r
        if depth <= 0 or r.random() < 0.15:
            return r.choice(self.names) if r.random() < 0.7 else r.choice(self.literals)
        k = r.random()
        sub = lambda: self.expr(depth - 1)
        if k < 0.25:
            return f"({sub()} {r.choice(self.binary)} {sub()})" if r.random() < 0.6 else f"{sub()} {r.choice(self.binary)} {sub()}"
        if k < 0.50:
            return f"({sub()})|{r.choice(self.filters)}"
        if k < 0.60:
            return f"({sub()}) is {r.choice(['', 'not '])}{r.choice(self.tests)}"
        if k < 0.75:
            return f"({sub()}).{r.choice(self.methods)}"
        if k < 0.85:
            # never of a literal: jinja2 folds those, and the error of a slice
            return f"{r.choice(self.names)}{r.choice(self.subscripts)}"
        if k < 0.90:
            return f"({sub()} if {sub()} else {sub()})"
        if k < 0.92:
            return f"{r.choice(['not ', '-', '+'])}({sub()})"
        if k < 0.95:
            return f"[{sub()}, {sub()}]"
        if k < 0.97:
            return "{%s: %s, 'k': %s}" % (sub(), sub(), sub())
        if k < 0.99:
            spec = r.choice(["%s", "%5s|", "%-6s|", "%r", "%d", "%05d", "%+d", "%x", "%.2f", "%8.3e", "%g", "%s%%", "%s %s", "%i", "%c", "%#x"])
            return f"'{spec}' % ({sub()}, )"
        spec = r.choice(["{}", "{:>8}", "{:<8}|", "{:^9}|", "{:*^9}", "{:05}", "{:+}", "{:,}", "{:.2f}", "{:.3}", "{!r}", "{0}{0}", "{:x}", "{:e}", "{:g}", "{:%}", "{:_}"])
        return f"'{spec}'.format({sub()})"

    def source(self):
        return "{{ " + self.expr(self.r.choice([1, 1, 2, 2, 3])) + " }}"


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("out", type=pathlib.Path)
    parser.add_argument("--templates", type=pathlib.Path)
    parser.add_argument("--random", nargs="+", type=int)
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    here = pathlib.Path(__file__).parent
    if args.templates:
        cases = from_templates(args.templates.glob("*.jinja"), args.out)
    elif args.random:
        made = Expressions(args.random[1] if len(args.random) > 1 else 0)
        cases = [c for c in from_sources([made.source() for _ in range(args.random[0])]) if " at 0x" not in c.get("text", "")]
    else:
        cases = from_templates(here.glob("*.jinja"), args.out) + from_sources(features(here / "features.txt"))
    used = {c["conversation"] for c in cases}
    conversations = {k: v for k, v in {**CONVERSATIONS, "values": dict(messages=[msg("user", "Hi")], vars=VALUES)}.items() if k in used}
    text = json.dumps(dict(conversations=conversations, cases=cases), ensure_ascii=False, indent=0)
    (args.out / "expected.json").write_text(text + "\n", encoding="utf-8")
    print(len(cases), "cases,", sum("error" in c for c in cases), "of them errors")


main()
