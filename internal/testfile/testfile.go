// Package testfile reads the files under testdata in tests: goldens, seeds of fuzz
// targets, and the corpora of damaged files. Only tests import it.
package testfile

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// ReadJSON decodes the JSON file at path into v, a pointer.
func ReadJSON(t testing.TB, path string, v any) {
	t.Helper()
	text, err := os.ReadFile(path)
	if err == nil {
		err = json.Unmarshal(text, v)
	}
	if err != nil {
		t.Fatalf("reading %s: %v", path, err)
	}
}

// AddSeeds seeds a fuzz target of one []byte with every file that matches one of the
// patterns; each pattern must match some.
func AddSeeds(f *testing.F, patterns ...string) {
	f.Helper()
	for _, pattern := range patterns {
		paths, err := filepath.Glob(pattern)
		if err != nil || len(paths) == 0 {
			f.Fatalf("no seeds %s: %v", pattern, err)
		}
		for _, path := range paths {
			seed, err := os.ReadFile(path)
			if err != nil {
				f.Fatal(err)
			}
			f.Add(seed)
		}
	}
}

// Malformed opens each file of the corpus in dir. A line of its expected.txt has, with
// tabs between them, the name of a file without .bin, our verdict and the reference
// reader's ("ok" or a key of classes), and words of our message. Where one says ok the
// other must too, but for the files named in stricter, which only we refuse. A refusal
// is one line that names the path, and wraps the error of its class and no other's. The
// corpus has at least least files.
func Malformed(t *testing.T, dir string, least int, classes map[string]error, stricter []string, open func(path string) error) {
	expected, err := os.ReadFile(filepath.Join(dir, "expected.txt"))
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSpace(string(expected)), "\n")
	if len(lines) < least {
		t.Errorf("%d files, want at least %d", len(lines), least)
	}
	for _, line := range lines {
		fields := strings.Split(line, "\t")
		name, verdict, reference, words := fields[0], fields[1], fields[2], fields[3]
		t.Run(name, func(t *testing.T) {
			if (verdict == "ok") != (reference == "ok") && !slices.Contains(stricter, name) {
				t.Errorf("our verdict is %s, the reference's %s", verdict, reference)
			}
			path := filepath.Join(dir, name+".bin")
			err := open(path)
			if verdict == "ok" {
				if err != nil {
					t.Error(err)
				}
				return
			}
			if _, ok := classes[verdict]; !ok || err == nil {
				t.Fatalf("error %v, want class %s", err, verdict)
			}
			for class, sentinel := range classes {
				if errors.Is(err, sentinel) != (class == verdict) {
					t.Errorf("error %v, want class %s", err, verdict)
				}
			}
			message := err.Error()
			if !strings.Contains(message, words) || !strings.Contains(message, path) || strings.Contains(message, "\n") {
				t.Errorf("message %q, want one line with %q and the path", message, words)
			}
		})
	}
}
