// Package tokenizer turns text into token ids and back, exactly as Hugging Face
// tokenizers and llama.cpp do for byte-level BPE: the tokenizers of GPT-2, SmolLM,
// Llama 3, Qwen2 and their relatives.
//
// A tokenizer comes from a tokenizer.json (ParseJSON) or from the vocabulary in a
// GGUF file (FromVocab), and can be written as either (JSON, Vocab):
//
//	tok, err := tokenizer.ParseJSON(data)
//	ids := tok.Encode("Hello world", tokenizer.Options{AddSpecial: true})
//	text := tok.Decode(ids, true)
//
// A text passes through these stages:
//
//  1. Added tokens (special ones such as <|im_start|> only with ParseSpecial) are
//     cut out of the text.
//  2. The normalizer rewrites the rest: NFC for Qwen2, else nothing. Added tokens
//     marked normalized are cut out after it.
//  3. The pre-tokenizer splits it into pieces such as " world". The usual regular
//     expressions are hand-written scanners; any other is rewritten for Go's
//     regexp, whose time is linear in the text.
//  4. The model merges each piece's bytes into tokens.
//  5. The post-processor adds tokens such as a BOS in front (with AddSpecial).
//
// # Caveats
//
// Models other than byte-level BPE (SentencePiece, Unigram, WordPiece) and steps
// that these tokenizers do not use are refused with ErrUnsupported, by name.
// So are look-around (but for \s+(?!\S)), anchors, possessive quantifiers and
// back-references in a Split pattern; under (?i), single characters fold, not ß
// to ss.
//
// The character classes are those of tokenizers 0.23.3 (Unicode 16.0, for Digits
// 17.0), its NFC that of Unicode 9; \p{Han} and other scripts are Go's. They serve
// GGUF vocabularies too, where llama.cpp has older tables and no case folding of
// U+017F: it splits next to digits and letters of Unicode 16 and later elsewhere.
//
// Decoding a tokenizer.json's added token treats its text as byte-level, as the
// reference does, so an added "é" decodes to U+FFFD. For a GGUF vocabulary added
// tokens decode to themselves, as in llama.cpp.
package tokenizer
