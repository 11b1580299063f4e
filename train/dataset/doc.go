// Package dataset reads training data and makes token sequences and batches of it.
//
// # Basics
//
// [Read] opens a file and returns its rows; what form they have is found out from their fields. An
// [Encoder] turns a row into tokens and says which of them carry a loss: an [Example] for language
// modelling, a [Pair] for preferences. [Batches] deals examples out, epoch by epoch.
//
//	file, err := dataset.Read("chats.jsonl.gz")
//	enc := dataset.Encoder{Tokenizer: tok, Template: tmpl, MaxLength: 1024}
//	examples, report, err := enc.Examples(file)
//	b, err := dataset.NewBatches(dataset.Lengths(examples), dataset.BatchOptions{Size: 4, MaxLength: 1024, Shuffle: true})
//	for _, batch := range b.Epoch(0) { … } // indexes of examples
//
// # Files
//
// JSON (an array of objects), JSON Lines (one object a line; .jsonl, .ndjson, or .json that begins
// with '{') and plain text, each also compressed by gzip (.gz) or Zstandard (.zst). Each row is one of
//
//	{"messages": [{"role": "user", "content": "…"}, …]}
//	{"conversations": [{"from": "human", "value": "…"}, …]}          ShareGPT
//	{"instruction": "…", "input": "…", "output": "…"}                Alpaca
//	{"prompt": …, "completion": …}                                   both strings, or both messages
//	{"text": "…"}
//	{"prompt": …, "chosen": …, "rejected": …}                        preferences: strings or messages
//	{"conversations": […], "chosen": {"from": …, "value": …}, "rejected": {…}}
//	{"instruction": "…", "input": "…", "chosen": "…", "rejected": "…"}
//
// Messages may have more fields (tool_calls, reasoning_content, name, …), and rows of messages the
// fields "tools", a list of schemas or a string with one, and "chat_template_kwargs", an object: the
// chat template gets them as they are. Who calls a tool may have no content.
//
// All rows of a file have the same form; other fields are ignored, but "system" and "history" belong
// to the ShareGPT and Alpaca forms. A plain text file has a row a line that is not blank.
//
// # What is rendered
//
// Conversations go through the chat template. An Alpaca row is a conversation of one question, the
// instruction and below it, after a blank line, the input. Strings (text, prompt and completion) are
// never put through a template; an end-of-sequence token follows them, and before them stands what the
// tokenizer adds by itself. This is what TRL does with each form.
//
// # Caveats
//
// Files are not trusted: a row may have [MaxRow] bytes and a file [MaxFile] after decompression.
// Rows are held in memory.
package dataset
