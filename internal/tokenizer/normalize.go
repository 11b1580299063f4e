package tokenizer

// This file normalizes text as the reference does, whose NFC is of an older
// Unicode version than x/text's: newer characters are left where they are.

import (
	"unicode/utf8"

	"golang.org/x/text/unicode/norm"
)

// normalizer rewrites a text before it is split.
type normalizer func(string) string

func nfc(s string) string {
	c := charClasses()
	start, separated := 0, false
	var out []byte
	for i, r := range s {
		if r >= utf8.RuneSelf && c.props(r)&propSeparate != 0 {
			separated = true
			out = append(out, norm.NFC.String(s[start:i])...)
			start = i + utf8.RuneLen(r)
			out = append(out, s[i:start]...)
		}
	}
	if !separated {
		return norm.NFC.String(s)
	}
	return string(append(out, norm.NFC.String(s[start:])...))
}
