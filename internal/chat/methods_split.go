package chat

// The string methods that split.

import (
	"strings"
	"unicode/utf8"
)

func splitMethod(r *renderer, name, s string, a args, fromRight bool) any {
	p := r.bind(name, a, "sep?", "maxsplit?")
	limit := r.intArg(p[1], -1)
	sep := or(p[0], nil)
	var parts []string
	if sep == nil {
		parts = splitSpace(s, limit, fromRight)
	} else {
		by := r.textArg(sep, "")
		if by == "" {
			r.fail("empty separator")
		}
		parts = splitBy(s, by, limit, fromRight)
	}
	r.step(len(parts))
	return stringList(parts)
}

func stringList(parts []string) *seq {
	items := make([]any, len(parts))
	for i, part := range parts {
		items[i] = part
	}
	return newList(items)
}

func splitBy(s, sep string, limit int64, fromRight bool) []string {
	all := strings.Split(s, sep)
	if fromRight && limit >= 0 { // separators are found from the right then
		all = nil
		for rest := s; ; {
			i := strings.LastIndex(rest, sep)
			if i < 0 || int64(len(all)) >= limit {
				all = append(all, rest)
				break
			}
			all = append(all, rest[i+len(sep):])
			rest = rest[:i]
		}
		for i, j := 0, len(all)-1; i < j; i, j = i+1, j-1 {
			all[i], all[j] = all[j], all[i]
		}
		return all
	}
	if limit < 0 || int64(len(all)-1) <= limit {
		return all
	}
	return append(all[:limit:limit], strings.Join(all[limit:], sep))
}

// splitSpace splits at runs of whitespace, dropping it at the ends.
func splitSpace(s string, limit int64, fromRight bool) []string {
	words := strings.FieldsFunc(s, isSpace)
	if limit < 0 || int64(len(words)) <= limit {
		return words
	}
	if fromRight {
		rest, out := s, []string{}
		for int64(len(out)) < limit {
			rest = strings.TrimRightFunc(rest, isSpace)
			i := strings.LastIndexFunc(rest, isSpace)
			_, size := utf8.DecodeRuneInString(rest[max(i, 0):])
			if i < 0 {
				size = 0
			}
			at := max(i, 0) + size
			out = append([]string{rest[at:]}, out...)
			rest = rest[:at]
		}
		if rest = strings.TrimRightFunc(rest, isSpace); rest != "" {
			out = append([]string{rest}, out...)
		}
		return out
	}
	rest, out := strings.TrimLeftFunc(s, isSpace), []string{}
	for int64(len(out)) < limit {
		i := strings.IndexFunc(rest, isSpace)
		if i < 0 {
			break
		}
		out = append(out, rest[:i])
		rest = strings.TrimLeftFunc(rest[i:], isSpace)
	}
	if rest != "" {
		out = append(out, rest)
	}
	return out
}

func isLineBreak(c rune) bool {
	return c >= '\n' && c <= '\r' || c >= 0x1c && c <= 0x1e || c == 0x85 || c == 0x2028 || c == 0x2029
}

func splitLines(s string, keep bool) []string {
	var out []string
	for s != "" {
		i := strings.IndexFunc(s, isLineBreak)
		if i < 0 {
			return append(out, s)
		}
		_, size := utf8.DecodeRuneInString(s[i:])
		if strings.HasPrefix(s[i:], "\r\n") {
			size = 2
		}
		if keep {
			out = append(out, s[:i+size])
		} else {
			out = append(out, s[:i])
		}
		s = s[i+size:]
	}
	return out
}

func splitLinesMethod(r *renderer, s string, a args) any {
	p := r.bind("splitlines", a, "keepends?")
	parts := splitLines(s, truth(or(p[0], false)))
	r.step(len(parts))
	return stringList(parts)
}
