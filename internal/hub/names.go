package hub

// The names of repositories and files, and patterns of the latter.

import (
	"fmt"
	"path"
	"regexp"
	"strings"
	"unicode"
	"unicode/utf8"
)

var repoName = regexp.MustCompile(`^(?:[0-9A-Za-z_](?:[0-9A-Za-z_.-]{0,94}[0-9A-Za-z_])?/)?[0-9A-Za-z_](?:[0-9A-Za-z_.-]{0,94}[0-9A-Za-z_])?$`)

// checkRepo reports what is wrong with a repository's name, OWNER/NAME or NAME.
func checkRepo(repo string) error {
	if !repoName.MatchString(repo) || strings.Contains(repo, "--") || strings.Contains(repo, "..") || strings.HasSuffix(repo, ".git") {
		return fmt.Errorf("%q is no repository's name: want OWNER/NAME, of letters, digits and single -, _ and dots", repo)
	}
	return nil
}

var commitHash = regexp.MustCompile(`^[0-9a-f]{40}$`)

// partFolder is where part files of a plain folder lie. Nothing in a repository is put there.
const partFolder = ".cache/huggingface"

// checkPath reports why a path in a listing cannot be a file inside a folder, on any system.
func checkPath(name string) error {
	switch {
	case name == "" || len(name) > 2000:
		return fmt.Errorf("it has %d bytes", len(name))
	case !utf8.ValidString(name):
		return fmt.Errorf("it is not UTF-8")
	case strings.ContainsFunc(name, unicode.IsControl):
		return fmt.Errorf("it has control characters")
	case strings.Contains(name, `\`):
		return fmt.Errorf(`it has a \`)
	case path.Clean(name) != name || strings.HasPrefix(name, "/") || name == "." || name == ".." || strings.HasPrefix(name, "../"):
		return fmt.Errorf("it could leave its folder")
	case name == partFolder || strings.HasPrefix(name, partFolder+"/"):
		return fmt.Errorf("downloads use that folder")
	}
	for part := range strings.SplitSeq(name, "/") {
		if len(part) > 255 {
			return fmt.Errorf("a part of it has %d bytes", len(part))
		}
		if len(part) > 1 && part[1] == ':' {
			return fmt.Errorf("it names a drive")
		}
	}
	return nil
}

// Selected reports whether a file is wanted: it matches one of include, where there are any, and
// none of exclude. Patterns mean what they mean to huggingface_hub: fnmatch's, with * also
// matching slashes, and a folder with its slash standing for all that is in it.
func Selected(name string, include, exclude []string) bool {
	name = strings.ReplaceAll(name, `\`, "/")
	matches := func(patterns []string) bool {
		for _, p := range patterns {
			p = strings.ReplaceAll(p, `\`, "/")
			if strings.HasSuffix(p, "/") {
				p += "*"
			}
			if glob([]rune(p), []rune(name)) {
				return true
			}
		}
		return false
	}
	return (len(include) == 0 || matches(include)) && !matches(exclude)
}

// glob matches as Python's fnmatchcase does: * and ? match any characters, slashes too, [abc],
// [a-z] and [!abc] one; a [ that nothing closes is itself. Work is at most the product of both lengths:
// when a * is met, what the one before it took is settled.
func glob(pattern, name []rune) bool {
	p, n := 0, 0
	star, from := -1, 0 // the last *, and where in name the rest after it was tried
	for n < len(name) {
		if p < len(pattern) {
			if pattern[p] == '*' {
				star, from = p, n
				p++
				continue
			}
			if width, ok := globOne(pattern[p:], name[n]); ok {
				p += width
				n++
				continue
			}
		}
		if star < 0 {
			return false
		}
		from++
		p, n = star+1, from
	}
	for p < len(pattern) && pattern[p] == '*' {
		p++
	}
	return p == len(pattern)
}

// globOne matches the first element of a pattern, which is not *, with a character. It returns
// how long the element is.
func globOne(pattern []rune, c rune) (width int, ok bool) {
	switch pattern[0] {
	case '?':
		return 1, true
	case '[':
	default:
		return 1, pattern[0] == c
	}
	start := 1
	negated := start < len(pattern) && pattern[start] == '!'
	if negated {
		start++
	}
	end := start
	if end < len(pattern) && pattern[end] == ']' { // the first is a member
		end++
	}
	for end < len(pattern) && pattern[end] != ']' {
		end++
	}
	if end >= len(pattern) {
		return 1, c == '['
	}
	member := false
	for set := pattern[start:end]; len(set) > 0; {
		if len(set) > 2 && set[1] == '-' {
			member = member || set[0] <= c && c <= set[2]
			set = set[3:]
			continue
		}
		member = member || set[0] == c
		set = set[1:]
	}
	return end + 1, member != negated
}
