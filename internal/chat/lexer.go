package chat

// This file turns template source into tokens: text outside tags, and the
// tokens inside {{ }} and {% %}. It decides all whitespace control, so
// nothing after it looks at the source again.

import (
	"math/big"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

type tokenKind uint8

const (
	tokEOF tokenKind = iota
	tokText
	tokPrintBegin
	tokPrintEnd
	tokBlockBegin
	tokBlockEnd
	tokName
	tokString
	tokNumber
	tokOp
)

// pos is a place in the template source, both counted from 1.
type pos struct{ line, col int }

type token struct {
	kind tokenKind
	text string // text, name, operator, or the decoded string literal
	num  any    // int64, *big.Int or float64 for tokNumber
	pos  pos
}

// describe names the token for an error message.
func (t token) describe() string {
	switch t.kind {
	case tokEOF:
		return "end of template"
	case tokText:
		return "template text"
	case tokPrintBegin:
		return "{{"
	case tokPrintEnd:
		return "}}"
	case tokBlockBegin:
		return "{%"
	case tokBlockEnd:
		return "%}"
	case tokString:
		return "a string"
	case tokNumber:
		return "a number"
	}
	return strconv.Quote(t.text)
}

type lexer struct {
	src  string
	off  int
	toks []token

	// lineStart says that the text token about to be cut begins a line:
	// the tag before it swallowed the newline, or there is none.
	lineStart bool
	brackets  []byte // closers still expected inside the current tag

	markOff int // offset whose position is mark, to count lines only once
	mark    pos
}

// lex splits the source into tokens, ending with one of kind tokEOF.
// Newlines are normalised to \n and one trailing newline is dropped.
func lex(source string) []token {
	src := normalizeNewlines(source)
	lx := &lexer{src: strings.TrimSuffix(src, "\n"), lineStart: true, mark: pos{1, 1}}
	for lx.off < len(lx.src) {
		lx.lexText()
	}
	lx.emit(token{kind: tokEOF, pos: lx.posAt(len(lx.src))})
	return lx.toks
}

func normalizeNewlines(s string) string {
	if !strings.Contains(s, "\r") {
		return s
	}
	return strings.ReplaceAll(strings.ReplaceAll(s, "\r\n", "\n"), "\r", "\n")
}

func (lx *lexer) emit(t token) { lx.toks = append(lx.toks, t) }

func (lx *lexer) posAt(off int) pos {
	if off < lx.markOff {
		lx.markOff, lx.mark = 0, pos{1, 1}
	}
	seg := lx.src[lx.markOff:off]
	if n := strings.Count(seg, "\n"); n > 0 {
		lx.mark.line += n
		lx.mark.col = 1 + utf8.RuneCountInString(seg[strings.LastIndexByte(seg, '\n')+1:])
	} else {
		lx.mark.col += utf8.RuneCountInString(seg)
	}
	lx.markOff = off
	return lx.mark
}

func (lx *lexer) fail(off int, format string, args ...any) {
	failSyntax(lx.posAt(off), format, args...)
}

// lexText cuts the text up to the next tag, then the tag itself.
func (lx *lexer) lexText() {
	start := lx.off
	open := -1
	for i := start; i+1 < len(lx.src); i++ {
		if lx.src[i] == '{' && (lx.src[i+1] == '{' || lx.src[i+1] == '%' || lx.src[i+1] == '#') {
			open = i
			break
		}
	}
	if open < 0 {
		lx.emitText(start, lx.src[start:])
		lx.off = len(lx.src)
		return
	}
	after, sign := open+2, byte(0)
	if after < len(lx.src) && (lx.src[after] == '-' || lx.src[after] == '+') {
		sign = lx.src[after]
		after++
	}
	kind := lx.src[open+1]
	lx.emitText(start, lx.stripBefore(lx.src[start:open], sign, kind == '{'))
	lx.off = after
	lx.lineStart = false
	switch kind {
	case '#':
		lx.lexComment(open)
	case '{':
		lx.emit(token{kind: tokPrintBegin, pos: lx.posAt(open)})
		lx.lexTag(open, "}}", tokPrintEnd)
	default:
		if end, ok := lx.matchWordTag(after, "raw", false); ok {
			lx.lexRaw(open, end)
			return
		}
		lx.emit(token{kind: tokBlockBegin, pos: lx.posAt(open)})
		lx.lexTag(open, "%}", tokBlockEnd)
	}
}

func (lx *lexer) emitText(off int, text string) {
	if text != "" {
		lx.emit(token{kind: tokText, text: text, pos: lx.posAt(off)})
	}
}

// stripBefore applies whitespace control to the text before a tag: "-" takes
// all trailing whitespace; otherwise, unless "+" or a print tag, whitespace
// between the last newline and the tag goes when nothing else is on the line.
func (lx *lexer) stripBefore(text string, sign byte, isPrint bool) string {
	if sign == '-' {
		return strings.TrimRightFunc(text, isSpace)
	}
	if sign == '+' || isPrint {
		return text
	}
	lineAt := strings.LastIndexByte(text, '\n') + 1
	if (lineAt > 0 || lx.lineStart) && strings.TrimLeftFunc(text[lineAt:], isSpace) == "" {
		return text[:lineAt]
	}
	return text
}

// closeTag tries to match a closing delimiter at off: "-%}" also takes the
// whitespace after it, "+%}" nothing, "%}" one newline where trim is set.
func (lx *lexer) closeTag(off int, delim string, trim, plus bool) (end int, ok bool) {
	rest := lx.src[off:]
	switch {
	case strings.HasPrefix(rest, "-"+delim):
		end = len(lx.src) - len(strings.TrimLeftFunc(rest[1+len(delim):], isSpace))
	case plus && strings.HasPrefix(rest, "+"+delim):
		end = off + 1 + len(delim)
	case strings.HasPrefix(rest, delim):
		end = off + len(delim)
		if trim && end < len(lx.src) && lx.src[end] == '\n' {
			end++
		}
	default:
		return 0, false
	}
	return end, true
}

// closed records that a tag ended at end.
func (lx *lexer) closed(end int) {
	lx.off = end
	lx.lineStart = lx.src[end-1] == '\n'
}

func (lx *lexer) lexComment(open int) {
	for i := lx.off; i < len(lx.src); i++ {
		if end, ok := lx.closeTag(i, "#}", true, true); ok {
			lx.closed(end)
			return
		}
	}
	lx.fail(open, "comment {# is never closed by #}")
}

// matchWordTag matches the rest of a {% raw %} or {% endraw %} tag at off.
func (lx *lexer) matchWordTag(off int, word string, trim bool) (end int, ok bool) {
	rest := strings.TrimLeftFunc(lx.src[off:], isSpace)
	if !strings.HasPrefix(rest, word) {
		return 0, false
	}
	rest = strings.TrimLeftFunc(rest[len(word):], isSpace)
	return lx.closeTag(len(lx.src)-len(rest), "%}", trim, trim)
}

func (lx *lexer) lexRaw(open, start int) {
	lx.closed(start)
	for i := start; i+1 < len(lx.src); i++ {
		if lx.src[i] != '{' || lx.src[i+1] != '%' {
			continue
		}
		after, sign := i+2, byte(0)
		if after < len(lx.src) && (lx.src[after] == '-' || lx.src[after] == '+') {
			sign = lx.src[after]
			after++
		}
		end, ok := lx.matchWordTag(after, "endraw", true)
		if !ok {
			continue
		}
		lx.emitText(start, lx.stripBefore(lx.src[start:i], sign, false))
		lx.closed(end)
		return
	}
	lx.fail(open, "{%% raw %%} is never closed by {%% endraw %%}")
}

// operators, longest first.
var operators = []string{"//", "**", "==", "!=", ">=", "<=",
	"+", "-", "/", "*", "%", "~", "[", "]", "(", ")", "{", "}", ">", "<", "=", ".", ":", "|", ",", ";"}

var closers = map[string]byte{"(": ')', "[": ']', "{": '}'}

// lexTag cuts the tokens of one tag up to and with its closing delimiter.
func (lx *lexer) lexTag(open int, delim string, endKind tokenKind) {
	lx.brackets = lx.brackets[:0]
	for lx.off < len(lx.src) {
		if len(lx.brackets) == 0 {
			if end, ok := lx.closeTag(lx.off, delim, delim == "%}", delim == "%}"); ok {
				lx.emit(token{kind: endKind, pos: lx.posAt(lx.off)})
				lx.closed(end)
				return
			}
		}
		r, size := utf8.DecodeRuneInString(lx.src[lx.off:])
		switch {
		case isSpace(r):
			lx.off += size
		case r >= '0' && r <= '9':
			lx.lexNumber()
		case r == '_' || unicode.IsLetter(r):
			lx.lexName()
		case r == '"' || r == '\'':
			lx.lexString(byte(r))
		default:
			lx.lexOperator()
		}
	}
	lx.fail(open, "tag is never closed by %s", delim)
}

func (lx *lexer) lexName() {
	end := lx.off
	for end < len(lx.src) {
		r, size := utf8.DecodeRuneInString(lx.src[end:])
		if r != '_' && !unicode.IsLetter(r) && !unicode.IsDigit(r) && !unicode.IsMark(r) {
			break
		}
		end += size
	}
	lx.emit(token{kind: tokName, text: lx.src[lx.off:end], pos: lx.posAt(lx.off)})
	lx.off = end
}

func (lx *lexer) lexOperator() {
	for _, op := range operators {
		if !strings.HasPrefix(lx.src[lx.off:], op) {
			continue
		}
		if want, ok := closers[op]; ok {
			lx.brackets = append(lx.brackets, want)
		} else if op == ")" || op == "]" || op == "}" {
			n := len(lx.brackets)
			if n == 0 {
				lx.fail(lx.off, "%q closes nothing", op)
			}
			if lx.brackets[n-1] != op[0] {
				lx.fail(lx.off, "unexpected %q, expected %q", op, string(lx.brackets[n-1]))
			}
			lx.brackets = lx.brackets[:n-1]
		}
		lx.emit(token{kind: tokOp, text: op, pos: lx.posAt(lx.off)})
		lx.off += len(op)
		return
	}
	r, _ := utf8.DecodeRuneInString(lx.src[lx.off:])
	lx.fail(lx.off, "unexpected character %q", r)
}

// digitsEnd returns the end of a run of decimal digits that single
// underscores may separate, or off where there is none.
func (lx *lexer) digitsEnd(off int) int {
	end := off
	for i := off; i < len(lx.src); i++ {
		c := lx.src[i]
		if c >= '0' && c <= '9' {
			end = i + 1
		} else if c != '_' || end != i || i == off {
			break
		}
	}
	return end
}

// floatEnd returns the end of a float literal at lx.off, or -1.
func (lx *lexer) floatEnd() int {
	if lx.off > 0 && lx.src[lx.off-1] == '.' {
		return -1 // the second index of a.0.1 is an integer
	}
	end, isFloat := lx.digitsEnd(lx.off), false
	if end < len(lx.src) && lx.src[end] == '.' {
		if e := lx.digitsEnd(end + 1); e > end+1 {
			end, isFloat = e, true
		}
	}
	if end < len(lx.src) && (lx.src[end] == 'e' || lx.src[end] == 'E') {
		i := end + 1
		if i < len(lx.src) && (lx.src[i] == '+' || lx.src[i] == '-') {
			i++
		}
		if e := lx.digitsEnd(i); e > i {
			end, isFloat = e, true
		}
	}
	if !isFloat {
		return -1
	}
	return end
}

func (lx *lexer) lexNumber() {
	at := lx.posAt(lx.off)
	if end := lx.floatEnd(); end > 0 {
		// The only error is overflow, which gives the infinity Python gives.
		f, _ := strconv.ParseFloat(strings.ReplaceAll(lx.src[lx.off:end], "_", ""), 64)
		lx.emit(token{kind: tokNumber, num: f, pos: at})
		lx.off = end
		return
	}
	end, base := lx.digitsEnd(lx.off), 0
	if lx.src[lx.off] == '0' {
		end = lx.off + 1
		for end < len(lx.src) && lx.src[end] == '0' {
			end++
		}
		if lx.off+1 < len(lx.src) {
			if e := lx.radixEnd(lx.off+2, lx.src[lx.off+1]|0x20); e > lx.off+2 {
				end = e
			}
		}
	}
	digits := strings.ReplaceAll(lx.src[lx.off:end], "_", "")
	if strings.Trim(digits, "0") == "" {
		digits = "0"
	}
	if len(digits) > maxIntDigits {
		lx.fail(lx.off, "integer literal has %d digits, the limit is %d", len(digits), maxIntDigits)
	}
	n, _ := new(big.Int).SetString(digits, base)
	lx.emit(token{kind: tokNumber, num: normInt(n), pos: at})
	lx.off = end
}

// radixEnd returns the end of the digits of a 0b, 0o or 0x literal at off.
func (lx *lexer) radixEnd(off int, radix byte) int {
	set := map[byte]string{'b': "01", 'o': "01234567", 'x': "0123456789abcdefABCDEF"}[radix]
	end := off
	for i := off; set != "" && i < len(lx.src); i++ {
		if strings.IndexByte(set, lx.src[i]) >= 0 {
			end = i + 1
		} else if lx.src[i] != '_' || i > off && lx.src[i-1] == '_' {
			break
		}
	}
	return end
}

func (lx *lexer) lexString(quote byte) {
	for i := lx.off + 1; i < len(lx.src); i++ {
		switch lx.src[i] {
		case '\\':
			i++
		case quote:
			at := lx.posAt(lx.off)
			text, err := unescape(lx.src[lx.off+1 : i])
			if err != "" {
				lx.fail(lx.off, "%s", err)
			}
			lx.emit(token{kind: tokString, text: text, pos: at})
			lx.off = i + 1
			return
		}
	}
	lx.fail(lx.off, "string is never closed")
}

var simpleEscapes = map[byte]string{'\n': "", '\\': "\\", '\'': "'", '"': "\"",
	'a': "\a", 'b': "\b", 'f': "\f", 'n': "\n", 'r': "\r", 't': "\t", 'v': "\v"}

// unescape decodes a string literal's body by Python's rules: an unknown
// escape stays as it is written. It returns what is wrong, or "".
func unescape(s string) (text, problem string) {
	if !strings.Contains(s, "\\") {
		return s, ""
	}
	var b strings.Builder
	for i := 0; i < len(s); {
		if s[i] != '\\' {
			b.WriteByte(s[i])
			i++
			continue
		}
		c := s[i+1] // lexString never leaves a lone backslash at the end
		width := map[byte]int{'x': 2, 'u': 4, 'U': 8}[c]
		switch {
		case width > 0:
			end := i + 2 + width
			if end > len(s) {
				return "", "truncated \\" + string(c) + " escape"
			}
			n, err := strconv.ParseUint(s[i+2:end], 16, 32)
			if err != nil || n > unicode.MaxRune || n >= 0xD800 && n < 0xE000 {
				return "", "\\" + string(c) + " escape is not a Unicode character"
			}
			b.WriteRune(rune(n))
			i = end
		case c >= '0' && c <= '7':
			n, end := rune(0), i+1
			for end < len(s) && end < i+4 && s[end] >= '0' && s[end] <= '7' {
				n = n*8 + rune(s[end]-'0')
				end++
			}
			b.WriteRune(n)
			i = end
		case c == 'N':
			return "", "\\N escapes are not supported, write \\u instead"
		case c >= utf8.RuneSelf:
			// Python spells such a character as an escape before decoding, so
			// that the backslash eats only the escape's own backslash.
			r, size := utf8.DecodeRuneInString(s[i+1:])
			b.WriteString("\\" + strings.TrimPrefix(asciiEscape(r), "\\"))
			i += 1 + size
		default:
			if e, ok := simpleEscapes[c]; ok {
				b.WriteString(e)
			} else {
				b.WriteString(s[i : i+2])
			}
			i += 2
		}
	}
	return b.String(), ""
}

// isSpace reports what Python's str.isspace and \s call whitespace.
func isSpace(r rune) bool {
	return r >= 0x1c && r <= 0x1f || unicode.IsSpace(r)
}
