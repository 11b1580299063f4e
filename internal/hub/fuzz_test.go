package hub

import (
	"encoding/json"
	"net/http"
	"net/url"
	"reflect"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/graftml/graft/internal/testhub"
)

// FuzzListing parses what a hub may say, and holds that what is taken can be written and read again,
// and that every path that passes stays in its folder.
func FuzzListing(f *testing.F) {
	var entries []any
	for path, data := range tiny() {
		entries = append(entries, testhub.Entry(path, data))
	}
	good, err := json.Marshal(entries)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	for _, seed := range []string{`[]`, `{}`, `[{"type":"file","path":"../x","size":1,"oid":"` + strings.Repeat("a", 40) + `"}]`, `[{"type":"directory"},{"type":"file"}]`,
		`[{"type":"file","path":"x","size":1,"oid":"` + strings.Repeat("a", 40) + `","xetHash":"` + strings.Repeat("b", 64) + `"}]`} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		files, err := parsePage(data, nil)
		if err != nil {
			return
		}
		if files, err = sortFiles(files); err != nil {
			return
		}
		for _, file := range files {
			if checkPath(file.Path) == nil && (strings.HasPrefix(file.Path, "/") || strings.Contains("/"+file.Path+"/", "/../")) {
				t.Fatalf("%q passes", file.Path)
			}
			if !utf8.ValidString(file.Path) {
				t.Skip("JSON has no such text")
			}
		}
		text, err := formatTree(files)
		if err != nil {
			t.Fatal(err)
		}
		again, err := parseTree(text)
		if err != nil || len(again) != len(files) || len(files) > 0 && !reflect.DeepEqual(again, files) {
			t.Fatalf("%s becomes %+v, %v, not %+v", text, again, err, files)
		}
	})
}

// FuzzTree parses lists of files in the cache.
func FuzzTree(f *testing.F) {
	files := []File{{Path: "a", Size: 1, Hash: strings.Repeat("a", 40), blob: strings.Repeat("a", 40), listed: 1},
		{Path: "b/c", Size: 2, Hash: strings.Repeat("b", 64), blob: strings.Repeat("c", 40), listed: 2, xet: strings.Repeat("d", 64)}}
	good, err := formatTree(files)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Add([]byte(`{"format_version": 1, "files": {"../x": {"size": 1, "blob_id": ""}}}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		files, err := parseTree(data)
		if err != nil {
			return
		}
		text, err := formatTree(files)
		if err != nil {
			t.Fatal(err)
		}
		if again, err := parseTree(text); err != nil || len(again) != len(files) {
			t.Fatalf("%s: %v", text, err)
		}
	})
}

// FuzzGlob holds that matching ends, and what must hold of any pattern.
func FuzzGlob(f *testing.F) {
	for _, seed := range [][2]string{{"*.json", "a/b.json"}, {"[a-c]*", "abc"}, {"[!]a-]?", "x"}, {strings.Repeat("*a", 50), strings.Repeat("a", 200)}, {"[", "["}} {
		f.Add(seed[0], seed[1])
	}
	f.Fuzz(func(t *testing.T, pattern, name string) {
		if len(pattern) > 200 || len(name) > 200 {
			return
		}
		got := Selected(name, []string{pattern}, nil)
		if got != Selected(name, []string{"*" + pattern}, nil) && got {
			t.Fatalf("%q matches %q, but not with a * before it", pattern, name)
		}
		if got == Selected(name, nil, []string{pattern}) {
			t.Fatalf("%q both takes and leaves out %q", pattern, name)
		}
	})
}

// FuzzHeaders parses what else a server may send.
func FuzzHeaders(f *testing.F) {
	f.Add(`<http://hub.test/api/x?cursor=1>; rel="next"`, "bytes 0-9/10", "120")
	f.Add(`<<>>;rel=next`, "bytes -1-/*", "Mon, 02 Jan 2006 15:04:05 GMT")
	c := &Client{Endpoint: "http://hub.test"}
	f.Fuzz(func(t *testing.T, link, span, after string) {
		if next, err := c.nextPage(http.Header{"Link": {link}}); err == nil && next != "" {
			if u, err := url.Parse(next); err != nil || !c.own(u) {
				t.Fatalf("%q leads to %q", link, next)
			}
		}
		if first, size, ok := contentRange(span); ok && (first < 0 || size < -1) {
			t.Fatalf("%q is taken for %d, %d", span, first, size)
		}
		if d := retryAfter(after); d < 0 || d > longestWait {
			t.Fatalf("%q waits %v", after, d)
		}
	})
}
