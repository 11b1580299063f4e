package hub

import (
	"bufio"
	"encoding/json"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/graftml/graft/internal/testfile"
	"github.com/graftml/graft/internal/testhub"
)

// TestGlobs compares patterns with huggingface_hub's.
func TestGlobs(t *testing.T) {
	var cases []struct {
		Pattern  string   `json:"pattern"`
		Paths    []string `json:"paths"`
		Selected []bool   `json:"selected"`
	}
	testfile.ReadJSON(t, "../../testdata/golden/hub/globs.json", &cases)
	n := 0
	for _, c := range cases {
		for i, path := range c.Paths {
			n++
			if got := Selected(path, []string{c.Pattern}, nil); got != c.Selected[i] {
				t.Errorf("pattern %q selects %q: %v, want %v", c.Pattern, path, got, c.Selected[i])
			}
		}
	}
	if n < 1000 {
		t.Errorf("only %d cases", n)
	}
}

// peer is huggingface_hub, in a process that make.py serves it from.
type peer struct {
	t   *testing.T
	in  *json.Encoder
	out *bufio.Scanner
}

type question struct {
	Endpoint string   `json:"endpoint"`
	Cache    string   `json:"cache"`
	Repo     string   `json:"repo"`
	Revision string   `json:"revision"`
	Offline  bool     `json:"offline"`
	Include  []string `json:"include"`
	Local    string   `json:"local"`
}

func (p *peer) pull(q question) (path, failure string) {
	p.t.Helper()
	if err := p.in.Encode(q); err != nil {
		p.t.Fatal(err)
	}
	if !p.out.Scan() {
		p.t.Fatal("the peer ended", p.out.Err())
	}
	var answer struct{ Path, Error string }
	if err := json.Unmarshal(p.out.Bytes(), &answer); err != nil {
		p.t.Fatal(err)
	}
	return answer.Path, answer.Error
}

// TestAgainstPeer pulls with huggingface_hub and with this package from one hub, compares the caches,
// and has each find without the hub what the other pulled.
func TestAgainstPeer(t *testing.T) {
	python := os.Getenv("GRAFT_HF_PYTHON")
	if python == "" {
		t.Skip("set GRAFT_HF_PYTHON to a Python that has huggingface_hub 2.4.0")
	}
	cmd := exec.CommandContext(t.Context(), python, "../../testdata/golden/hub/make.py", "serve")
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		in.Close()
		_ = cmd.Wait()
	}()
	p := &peer{t, json.NewEncoder(in), bufio.NewScanner(out)}

	for _, q := range []question{
		{Revision: "main"},
		{Revision: "refs/pr/1", Include: []string{"*.json", "onnx/"}},
		{Revision: "a commit"},
	} {
		h, repo, c := setup(t)
		if q.Revision == "a commit" {
			q.Revision = repo.Commit
		}
		q.Endpoint, q.Repo, q.Cache = h.URL, name, filepath.Join(t.TempDir(), "hub")
		theirs, failure := p.pull(q)
		if failure != "" {
			t.Fatal(failure)
		}
		asked := h.Log()
		pull := Pull{Repo: name, Revision: q.Revision, Include: q.Include}
		ours, err := c.Pull(t.Context(), pull)
		if err != nil {
			t.Fatal(err)
		}
		t.Logf("%s: huggingface_hub made %d requests, this package %d", q.Revision, len(asked), len(h.Log()))
		a, b := tree(t, q.Cache), tree(t, c.Cache)
		compareTrees(t, a, b)
		if filepath.Base(theirs) != filepath.Base(ours.Path) {
			t.Errorf("it returns %q, we %q", theirs, ours.Path)
		}

		// Each without the hub, in the other's cache.
		swapped := q
		swapped.Cache, swapped.Offline, swapped.Endpoint = c.Cache, true, "http://127.0.0.1:1"
		if path, failure := p.pull(swapped); path != ours.Path {
			t.Errorf("huggingface_hub in our cache: %q, %s", path, failure)
		}
		offline := &Client{Endpoint: c.Endpoint, Cache: q.Cache, Offline: true, http: c.http}
		if got, err := offline.Pull(t.Context(), pull); err != nil || got.Path != theirs {
			t.Errorf("we in its cache: %+v, %v", got, err)
		}
		// And each goes on in the other's cache, where a file is lost, without asking for the rest.
		for _, cache := range []string{q.Cache, c.Cache} {
			lost := filepath.Join(cache, "models--owner--tiny", "blobs", testhub.GitHash(repo.Files["config.json"]))
			for _, link := range []string{"config.json", "copy/config.json"} {
				os.Remove(filepath.Join(cache, "models--owner--tiny", "snapshots", repo.Commit, link))
			}
			if err := os.Remove(lost); err != nil {
				t.Fatal(err)
			}
		}
		h.Log()
		other := *c
		other.Cache = q.Cache
		if got, err := other.Pull(t.Context(), pull); err != nil || got.Downloaded != int64(len(repo.Files["config.json"])) {
			t.Errorf("we go on in its cache: %+v, %v", got, err)
		}
		swapped.Offline, swapped.Endpoint = false, h.URL
		if _, failure := p.pull(swapped); failure != "" {
			t.Errorf("it goes on in our cache: %s", failure)
		}
		compareTrees(t, tree(t, q.Cache), tree(t, c.Cache))
	}

	// A folder of plain files: the same ones, beside its own notes, and each takes over the other's.
	h, repo, c := setup(t)
	theirs, ours := t.TempDir(), t.TempDir()
	q := question{Endpoint: h.URL, Repo: name, Revision: "main", Cache: t.TempDir()}
	q.Local = theirs
	if _, failure := p.pull(q); failure != "" {
		t.Fatal(failure)
	}
	if _, err := c.Pull(t.Context(), Pull{Repo: name, Out: ours}); err != nil {
		t.Fatal(err)
	}
	plain := tree(t, theirs)
	maps.DeleteFunc(plain, func(path, _ string) bool { return strings.HasPrefix(path, ".cache/huggingface/") })
	if diff := cmp.Diff(plain, tree(t, ours)); diff != "" || !maps.Equal(plain, texts(repo.Files)) {
		t.Error("the folders differ:\n", diff)
	}
	h.Log()
	if got, err := c.Pull(t.Context(), Pull{Repo: name, Out: theirs}); err != nil || got.Downloaded != 0 {
		t.Errorf("we in its folder: %+v, %v", got, err)
	}
	q.Local = ours
	if _, failure := p.pull(q); failure != "" {
		t.Errorf("it in our folder: %s", failure)
	}
	for _, line := range h.Log() {
		if strings.HasPrefix(line, "storage GET") {
			t.Errorf("downloaded again: %s", line)
		}
	}
}

// compareTrees holds that two caches have the same files, with the same bytes and links. The text in
// CACHEDIR.TAG is each writer's own, and so is the layout of JSON.
func compareTrees(t *testing.T, a, b map[string]string) {
	t.Helper()
	if diff := cmp.Diff(slices.Sorted(maps.Keys(a)), slices.Sorted(maps.Keys(b))); diff != "" {
		t.Errorf("the caches have other files (- theirs, + ours):\n%s", diff)
	}
	for path := range a {
		if path == "CACHEDIR.TAG" || strings.HasSuffix(path, ".json") && strings.Contains(path, "/trees/") {
			continue
		}
		if a[path] != b[path] {
			t.Errorf("%s: %.80q, ours %.80q", path, a[path], b[path])
		}
	}
	for path, text := range a {
		if strings.Contains(path, "/trees/") {
			var x, y any
			if json.Unmarshal([]byte(text), &x) != nil || json.Unmarshal([]byte(b[path]), &y) != nil || !cmp.Equal(x, y) {
				t.Errorf("the lists of files differ:\n%s", cmp.Diff(x, y))
			}
		}
	}
}
