// Package tokenizer turns text into token ids and back, exactly as Hugging Face
// tokenizers, SentencePiece and llama.cpp do: byte-level BPE (GPT-2, Llama 3, Qwen,
// SmolLM, Mistral's tekken, Phi-4, Granite, OLMo and their relatives), SentencePiece's BPE
// (Llama 2, Mistral, Gemma, Phi-3) and its unigram model (T5, ALBERT).
//
// A tokenizer comes from a tokenizer.json (ParseJSON), from a tokenizer.model
// (ParseSentencePiece) or from the vocabulary in a GGUF file (FromVocab), and can be
// written as tokenizer.json or as a GGUF vocabulary (JSON, Vocab):
//
//	tok, err := tokenizer.ParseJSON(data)
//	ids := tok.Encode("Hello world", tokenizer.Options{AddSpecial: true})
//	text := tok.Decode(ids, true)
//
// A text passes through these stages:
//
//  1. Added tokens (special ones such as <|im_start|> only with ParseSpecial) are
//     cut out of the text.
//  2. The normalizer rewrites the rest: NFC for Qwen2, spaces to underlines for Llama 2,
//     else often nothing. Added tokens marked normalized are cut out after it.
//  3. The pre-tokenizer splits it into pieces such as " world". The usual regular
//     expressions are hand-written scanners; any other is rewritten for Go's
//     regexp, whose time is linear in the text.
//  4. The model makes tokens of each piece: by merges in order of rank (bpe), by merges in
//     order of score (spm), or by the most probable way to cut it (unigram).
//  5. The post-processor adds tokens such as a BOS in front (with AddSpecial).
//
// Whatever its source, a tokenizer is described in tokenizer.json's terms (document), and
// built from that description.
//
// # Caveats
//
// WordPiece, WordLevel and steps that these tokenizers do not use are refused with
// ErrUnsupported, by name. So are look-around (but for \s+(?!\S)), anchors, most possessive
// quantifiers and back-references in a Split pattern; under (?i), single characters fold,
// not ß to ss.
//
// The character classes are those of tokenizers 0.23.3 (Unicode 16.0, for Digits
// 17.0), its normalization forms those of Unicode 9; \p{Han} and other scripts are Go's.
// They serve GGUF vocabularies too, where llama.cpp has older tables and no case folding of
// U+017F: it splits next to digits and letters of Unicode 16 and later elsewhere. The
// pre-tokenizers "tekken" and "gpt-4o" are the models' own; llama.cpp takes every letter
// beyond ASCII for both a capital and a small one, so it splits some words elsewhere.
//
// llama.cpp puts a space in front of all text that starts the input or follows a special
// token. A tokenizer that does so only at the very start, or not before a space (Metaspace
// in place of Prepend), loses that difference in GGUF, as in llama.cpp's own converter.
// Flags of added tokens (lstrip, rstrip, single_word) have no place there either.
//
// Decoding a byte-level tokenizer.json's added token treats its text as byte-level, as the
// reference does, so an added "é" decodes to U+FFFD. For a GGUF vocabulary added
// tokens decode to themselves, as in llama.cpp.
package tokenizer
