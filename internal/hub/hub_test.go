package hub

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/graftml/graft/internal/testhub"
)

// weights are bytes for a large file, the same each time.
func weights(n int) []byte {
	out := make([]byte, n)
	state := uint32(1)
	for i := range out {
		state = state*1664525 + 1013904223
		out[i] = byte(state >> 24)
	}
	return out
}

const name = "owner/tiny"

func tiny() map[string][]byte {
	return map[string][]byte{
		"config.json":           []byte(`{"model_type": "llama"}` + "\n"),
		"model.safetensors":     weights(3 << 20),
		"onnx/model.gguf":       weights(100_000),
		"onnx/deep/é ü&?#.json": []byte("{}"),
		"README.md":             []byte("# tiny\n"),
		"copy/config.json":      []byte(`{"model_type": "llama"}` + "\n"),
		"copy/weights.gguf":     weights(100_000),
		"empty.txt":             {},
	}
}

// setup returns a hub with one repository, and a client that does not wait between tries.
func setup(t *testing.T) (*testhub.Hub, *testhub.Repo, *Client) {
	t.Helper()
	h := testhub.New(t)
	repo := h.Add(name, &testhub.Repo{Files: tiny()})
	return h, repo, client(t, h)
}

func client(t *testing.T, h *testhub.Hub) *Client {
	t.Helper()
	c, err := New(h.URL, filepath.Join(t.TempDir(), "hub"))
	if err != nil {
		t.Fatal(err)
	}
	c.wait = func(ctx context.Context, _ time.Duration) error { return ctx.Err() }
	return c
}

// tree is what a folder holds: contents by path, links as "-> target".
func tree(t *testing.T, dir string) map[string]string {
	t.Helper()
	out := map[string]string{}
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		rel, _ := filepath.Rel(dir, path)
		if to, err := os.Readlink(path); err == nil {
			out[rel] = "-> " + to
			return nil
		}
		data, err := os.ReadFile(path)
		out[rel] = string(data)
		return err
	})
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	return out
}

func texts(files map[string][]byte) map[string]string {
	out := map[string]string{}
	for path, data := range files {
		out[path] = string(data)
	}
	return out
}

func TestPullIntoCache(t *testing.T) {
	h, repo, c := setup(t)
	var last, total atomic.Int64
	got, err := c.Pull(t.Context(), Pull{Repo: name, Progress: func(done, all int64) { last.Store(done); total.Store(all) }})
	if err != nil {
		t.Fatal(err)
	}
	home := filepath.Join(c.Cache, "models--owner--tiny")
	if got.Path != filepath.Join(home, "snapshots", repo.Commit) || got.Commit != repo.Commit || len(got.Files) != len(repo.Files) {
		t.Errorf("pulled %+v", got)
	}
	if last.Load() != total.Load() || total.Load() != got.Bytes {
		t.Errorf("progress ended at %d of %d, pulled %d bytes", last.Load(), total.Load(), got.Bytes)
	}
	if want := got.Bytes - 100_000 - int64(len(repo.Files["config.json"])); got.Downloaded != want { // each content once
		t.Errorf("downloaded %d bytes, want %d", got.Downloaded, want)
	}
	all := tree(t, home)
	if string(all["refs/main"]) != repo.Commit {
		t.Errorf("refs/main is %q", all["refs/main"])
	}
	for path, data := range repo.Files {
		hash := testhub.GitHash(data)
		if testhub.LFS(path, data) {
			hash = testhub.SHA256(data)
		}
		up := strings.Repeat("../", 2+strings.Count(path, "/"))
		if link := all["snapshots/"+repo.Commit+"/"+path]; link != "-> "+up+"blobs/"+hash {
			t.Errorf("%s is %q", path, link)
		}
		if all["blobs/"+hash] != string(data) {
			t.Errorf("the blob of %s has %d bytes", path, len(all["blobs/"+hash]))
		}
		if read, err := os.ReadFile(filepath.Join(got.Path, path)); err != nil || !bytes.Equal(read, data) {
			t.Errorf("%s: %v", path, err)
		}
	}
	if left, _ := filepath.Glob(filepath.Join(home, "blobs", "*.incomplete")); len(left) > 0 {
		t.Errorf("part files stay: %v", left)
	}
	h.Log()
	again, err := c.Pull(t.Context(), Pull{Repo: name})
	if err != nil || again.Downloaded != 0 || again.Path != got.Path {
		t.Errorf("again: %+v, %v", again, err)
	}
	if log := h.Log(); len(log) != 1 { // for the commit of main; its files are known
		t.Errorf("again it asked %q", log)
	}
	if _, err := c.Pull(t.Context(), Pull{Repo: name, Revision: repo.Commit}); err != nil || len(h.Log()) != 0 {
		t.Errorf("a commit that is there: %v, or the hub was asked", err)
	}
}

func TestPullIntoFolder(t *testing.T) {
	h, repo, c := setup(t)
	out := filepath.Join(t.TempDir(), "new", "model")
	got, err := c.Pull(t.Context(), Pull{Repo: name, Out: out})
	if err != nil {
		t.Fatal(err)
	}
	if all := tree(t, out); got.Path != out || !maps.Equal(all, texts(repo.Files)) {
		t.Errorf("%q has %v", got.Path, slices.Sorted(maps.Keys(all)))
	}
	if len(tree(t, c.Cache)) > 0 {
		t.Errorf("the cache got %v", tree(t, c.Cache))
	}
	h.Log()
	if again, err := c.Pull(t.Context(), Pull{Repo: name, Out: out}); err != nil || again.Downloaded != 0 {
		t.Errorf("again: %+v, %v", again, err)
	}
	// A file of one's own is not lost.
	if err := os.WriteFile(filepath.Join(out, "README.md"), []byte("# mine\n"), 0o666); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Pull(t.Context(), Pull{Repo: name, Out: out}); err == nil || !strings.Contains(err.Error(), "--force") {
		t.Errorf("over another file: %v", err)
	}
	if _, err := c.Pull(t.Context(), Pull{Repo: name, Out: out, Force: true}); err != nil || !maps.Equal(tree(t, out), texts(repo.Files)) {
		t.Errorf("with force: %v", err)
	}
	// What the cache has is not downloaded.
	if _, err := c.Pull(t.Context(), Pull{Repo: name}); err != nil {
		t.Fatal(err)
	}
	h.Log()
	other := t.TempDir()
	if got, err := c.Pull(t.Context(), Pull{Repo: name, Out: other}); err != nil || got.Downloaded != 0 || !maps.Equal(tree(t, other), texts(repo.Files)) {
		t.Errorf("from the cache: %+v, %v", got, err)
	}
}

func TestSelection(t *testing.T) {
	_, repo, c := setup(t)
	for _, p := range []struct {
		include, exclude, want []string
	}{
		{nil, []string{"*.safetensors", "*.gguf", "onnx/"}, []string{"README.md", "config.json", "copy/config.json", "empty.txt"}},
		{[]string{"*.json"}, nil, []string{"config.json", "copy/config.json", "onnx/deep/é ü&?#.json"}},
		{[]string{"onnx/", "README.*"}, []string{"*deep*"}, []string{"README.md", "onnx/model.gguf"}},
	} {
		got, err := c.List(t.Context(), Pull{Repo: name, Include: p.include, Exclude: p.exclude})
		if err != nil {
			t.Fatal(err)
		}
		var paths []string
		for _, f := range got.Files {
			paths = append(paths, f.Path)
		}
		if !slices.Equal(paths, p.want) {
			t.Errorf("include %q, exclude %q: %q, want %q", p.include, p.exclude, paths, p.want)
		}
	}
	if _, err := c.Pull(t.Context(), Pull{Repo: name, Include: []string{"*.bin"}}); !errors.Is(err, ErrNotFound) {
		t.Errorf("nothing wanted: %v", err)
	}
	if len(tree(t, c.Cache)) > 0 {
		t.Error("a listing put something into the cache")
	}
	// A snapshot in part is known as one without the hub.
	if _, err := c.Pull(t.Context(), Pull{Repo: name, Include: []string{"*.json"}}); err != nil {
		t.Fatal(err)
	}
	c.Offline = true
	if _, err := c.Pull(t.Context(), Pull{Repo: name}); !errors.Is(err, ErrOffline) || !strings.Contains(err.Error(), "README.md") {
		t.Errorf("offline, in part: %v", err)
	}
	for _, revision := range []string{"", repo.Commit} {
		if got, err := c.Pull(t.Context(), Pull{Repo: name, Revision: revision, Include: []string{"*.json"}}); err != nil || len(got.Files) != 3 {
			t.Errorf("offline, what is there: %v", err)
		}
	}
}

func TestOffline(t *testing.T) {
	h, repo, c := setup(t)
	c.Offline = true
	if _, err := c.Pull(t.Context(), Pull{Repo: name}); !errors.Is(err, ErrOffline) {
		t.Errorf("never pulled: %v", err)
	}
	c.Offline = false
	got, err := c.Pull(t.Context(), Pull{Repo: name, Revision: "refs/pr/1"})
	if err != nil {
		t.Fatal(err)
	}
	h.Log()
	c.Offline = true
	if again, err := c.Pull(t.Context(), Pull{Repo: name, Revision: "refs/pr/1"}); err != nil || again.Path != got.Path {
		t.Errorf("offline: %v", err)
	}
	out := t.TempDir()
	if _, err := c.Pull(t.Context(), Pull{Repo: name, Revision: repo.Commit, Out: out}); err != nil || !maps.Equal(tree(t, out), texts(repo.Files)) {
		t.Errorf("offline into a folder: %v", err)
	}
	// A cache whose writer kept no lists of files.
	if err := os.RemoveAll(filepath.Join(c.Cache, "models--owner--tiny", "trees")); err != nil {
		t.Fatal(err)
	}
	if again, err := c.Pull(t.Context(), Pull{Repo: name, Revision: "refs/pr/1"}); err != nil || len(again.Files) != len(repo.Files) {
		t.Errorf("offline, without a list: %v", err)
	}
	if log := h.Log(); len(log) > 0 {
		t.Errorf("offline it asked %q", log)
	}
}

// TestToken holds that the token goes to the hub and nowhere else.
func TestToken(t *testing.T) {
	h := testhub.New(t)
	h.Token = "hf_secret"
	h.Add("owner/private", &testhub.Repo{Private: true, Files: tiny()})
	h.Add("owner/gated", &testhub.Repo{Gated: true, Files: tiny()})
	c := client(t, h)
	for repo, want := range map[string]error{"owner/private": ErrAccess, "owner/gated": ErrAccess, "owner/absent": ErrAccess} {
		_, err := c.Pull(t.Context(), Pull{Repo: repo})
		if !errors.Is(err, want) || !strings.Contains(err.Error(), "set HF_TOKEN") {
			t.Errorf("%s without a token: %v", repo, err)
		}
	}
	c.Token = "hf_other"
	if _, err := c.Pull(t.Context(), Pull{Repo: "owner/private"}); !errors.Is(err, ErrAccess) || !strings.Contains(err.Error(), "the token in use") || strings.Contains(err.Error(), c.Token) {
		t.Errorf("another token: %v", err)
	}
	c.Token = h.Token
	for _, repo := range []string{"owner/private", "owner/gated"} {
		if _, err := c.Pull(t.Context(), Pull{Repo: repo}); err != nil {
			t.Errorf("%s with the token: %v", repo, err)
		}
	}
	if _, err := c.Pull(t.Context(), Pull{Repo: "owner/absent"}); !errors.Is(err, ErrNotFound) {
		t.Errorf("absent: %v", err)
	}
	stored := 0
	for _, line := range h.Log() {
		if strings.HasPrefix(line, "storage ") {
			stored++
			if strings.HasSuffix(line, " token") {
				t.Errorf("the token went along: %s", line)
			}
		}
	}
	if stored == 0 {
		t.Error("nothing came from the storage")
	}
}

// TestNextPage holds that a listing goes on at the endpoint only.
func TestNextPage(t *testing.T) {
	c := &Client{Endpoint: "http://hub.test/mirror"}
	for link, want := range map[string]string{
		"": "",
		`<http://hub.test/mirror/api/models/a/b/tree/c?cursor=x%3D>; rel="next"`:             "http://hub.test/mirror/api/models/a/b/tree/c?cursor=x%3D",
		`<https://other.test/api/models/a/b/tree/c?cursor=1>; rel="next"`:                    "http://hub.test/mirror/api/models/a/b/tree/c?cursor=1",
		`</api/models/a?cursor=1>; rel=next`:                                                 "http://hub.test/mirror/api/models/a?cursor=1",
		`<http://hub.test/api/first>; rel="first", <http://hub.test/api/second>; rel="next"`: "http://hub.test/api/second",
		`<http://hub.test/api/first>; rel="first"`:                                           "",
		`<https://other.test/elsewhere>; rel="next"`:                                         "an error",
		"<http://[>; rel=next":                                                               "an error",
	} {
		got, err := c.nextPage(http.Header{"Link": {link}})
		if err != nil {
			got = "an error"
		}
		if got != want {
			t.Errorf("%s: %q, want %q", link, got, want)
		}
	}
}

// TestHostileListings has names that would leave the folder, and listings that cannot be.
func TestHostileListings(t *testing.T) {
	good := testhub.Entry("good.txt", []byte("good"))
	for _, path := range []string{"../evil", "/evil", "a/../../evil", "..", ".", "", "a//b", "a/./b", `a\..\..\evil`, "C:evil", "a/c:/evil", "nul\x00", "line\nbreak", "bell\a",
		strings.Repeat("a/", 1500) + "b", strings.Repeat("x", 300), ".cache/huggingface/download/x", "a/"} {
		_, repo, c := setup(t)
		repo.Entries = []map[string]any{good, testhub.Entry(path, []byte("evil"))}
		repo.Files["good.txt"] = []byte("good")
		out := filepath.Join(t.TempDir(), "deep", "out")
		for _, p := range []Pull{{Repo: name}, {Repo: name, Out: out}} {
			if _, err := c.Pull(t.Context(), p); !errors.Is(err, ErrFormat) || !strings.Contains(err.Error(), "not put on this disk") {
				t.Errorf("%q: %v", path, err)
			}
		}
		if _, err := c.Pull(t.Context(), Pull{Repo: name, Out: out, Include: []string{"good*"}}); err != nil {
			t.Errorf("the file beside %q: %v", path, err)
		}
	}
	entry := func(path string, change map[string]any) map[string]any {
		e := testhub.Entry(path, []byte("good"))
		maps.Copy(e, change)
		return e
	}
	for what, entries := range map[string][]map[string]any{
		"twice":          {good, good},
		"file in file":   {good, testhub.Entry("good.txt/x", nil)},
		"negative size":  {entry("a", map[string]any{"size": -1})},
		"huge size":      {entry("a", map[string]any{"size": 1 << 60})},
		"no hash":        {entry("a", map[string]any{"oid": ""})},
		"path as a hash": {entry("a", map[string]any{"oid": "../../../../../../../../../../../../tmp/xx"})},
		"upper hash":     {entry("a", map[string]any{"oid": strings.Repeat("A", 40)})},
		"sha256 of git":  {entry("a", map[string]any{"oid": strings.Repeat("a", 64)})},
		"short lfs":      {entry("a", map[string]any{"lfs": map[string]any{"oid": strings.Repeat("a", 40), "size": 4}})},
		"lfs, no size":   {entry("a", map[string]any{"lfs": map[string]any{"oid": strings.Repeat("a", 64), "size": -4}})},
		"two sizes":      {entry("a", nil), entry("b", map[string]any{"size": 5})},
		"wrong types":    {entry("a", map[string]any{"size": "4"})},
	} {
		_, repo, c := setup(t)
		repo.Entries = entries
		if _, err := c.Pull(t.Context(), Pull{Repo: name}); !errors.Is(err, ErrFormat) {
			t.Errorf("%s: %v", what, err)
		}
	}
}

func TestNames(t *testing.T) {
	_, _, c := setup(t)
	for _, repo := range []string{"", "a/b/c", "../x", "a/..", ".a/b", "a/b.git", "a--b/c", "a b", "a/", "/a", "é/x", "-a/b", "a/b-", strings.Repeat("a", 97)} {
		if _, err := c.Pull(t.Context(), Pull{Repo: repo}); err == nil || !strings.Contains(err.Error(), "OWNER/NAME") {
			t.Errorf("repository %q: %v", repo, err)
		}
	}
	for _, repo := range []string{"gpt2", "a/b", "Org_1/Name.v1-2", "a", "0/_"} {
		if err := checkRepo(repo); err != nil {
			t.Error(err)
		}
	}
	for _, revision := range []string{"../../x", "/etc", "a//b", "x\n"} {
		if _, err := c.Pull(t.Context(), Pull{Repo: name, Revision: revision}); err == nil || !strings.Contains(err.Error(), "revision") {
			t.Errorf("revision %q: %v", revision, err)
		}
	}
	if _, err := c.Pull(t.Context(), Pull{Repo: name, Revision: "absent"}); !errors.Is(err, ErrNotFound) || !strings.Contains(err.Error(), "--revision") {
		t.Errorf("no such revision: %v", err)
	}
	for _, endpoint := range []string{"", "hub.test", "ftp://hub.test", "http://user:word@hub.test", "http://hub.test?x", "http://"} {
		if _, err := New(endpoint, ""); err == nil {
			t.Errorf("endpoint %q is taken", endpoint)
		}
	}
}

// TestUnreachable has nobody listen.
func TestUnreachable(t *testing.T) {
	_, _, c := setup(t)
	c.Endpoint = "http://127.0.0.1:1"
	var notices []string
	c.Notice = func(m string) { notices = append(notices, m) }
	if _, err := c.Pull(t.Context(), Pull{Repo: name}); err == nil || !strings.Contains(err.Error(), "cannot reach 127.0.0.1:1") || !strings.Contains(err.Error(), "HF_HUB_OFFLINE") {
		t.Errorf("nobody there: %v", err)
	}
	if len(notices) != maxTries-1 || !strings.Contains(notices[0], "trying again in") {
		t.Errorf("notices %q", notices)
	}
}

// TestNoHub has an address behind which is something else.
func TestNoHub(t *testing.T) {
	h, _, c := setup(t)
	for _, answer := range []string{"<html>", "[]", `{"sha": "x"}`, strings.Repeat(" ", maxPage+1)} {
		h.Intercept = func(w http.ResponseWriter, r *http.Request, _ bool) bool {
			_, _ = w.Write([]byte(answer))
			return true
		}
		if _, err := c.Pull(t.Context(), Pull{Repo: name}); !errors.Is(err, ErrFormat) {
			t.Errorf("%.20q: %v", answer, err)
		}
	}
	h.Intercept = func(w http.ResponseWriter, r *http.Request, _ bool) bool {
		http.Redirect(w, r, strings.Replace(h.Storage, "127.0.0.1", "localhost", 1), http.StatusFound)
		return true
	}
	if _, err := c.Pull(t.Context(), Pull{Repo: name}); !errors.Is(err, ErrFormat) || !strings.Contains(err.Error(), "another host") {
		t.Errorf("the API on another host: %v", err)
	}
}

// TestTwoPulls runs two pulls of one repository at once, into the cache and into one folder.
func TestTwoPulls(t *testing.T) {
	_, repo, c := setup(t)
	for _, out := range []string{"", filepath.Join(t.TempDir(), "out")} {
		results := make(chan error, 2)
		for range 2 {
			go func() {
				_, err := c.Pull(t.Context(), Pull{Repo: name, Out: out})
				results <- err
			}()
		}
		failed := 0
		for range 2 {
			if err := <-results; err != nil {
				failed++
				if out == "" || !strings.Contains(err.Error(), "another pull") {
					t.Error(err)
				}
			}
		}
		if failed == 2 {
			t.Error("both failed")
		}
		if out != "" && !maps.Equal(tree(t, out), texts(repo.Files)) {
			t.Errorf("the folder has %v", slices.Sorted(maps.Keys(tree(t, out))))
		}
	}
}

func TestFromEnvironment(t *testing.T) {
	for _, name := range []string{"HF_ENDPOINT", "HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HF_TOKEN_PATH",
		"HF_HOME", "XDG_CACHE_HOME", "HF_HUB_DISABLE_IMPLICIT_TOKEN"} {
		t.Setenv(name, "")
	}
	home := t.TempDir()
	t.Setenv("HOME", home)
	check := func(endpoint, cache, token string, offline bool) {
		t.Helper()
		c, err := FromEnvironment()
		if err != nil || c.Endpoint != endpoint || c.Cache != cache || c.Token != token || c.Offline != offline {
			t.Errorf("%+v, %v; want %q %q %q %v", c, err, endpoint, cache, token, offline)
		}
	}
	check(DefaultEndpoint, filepath.Join(home, ".cache", "huggingface", "hub"), "", false)
	t.Setenv("XDG_CACHE_HOME", "~/xdg")
	check(DefaultEndpoint, filepath.Join(home, "xdg", "huggingface", "hub"), "", false)
	t.Setenv("HF_HOME", "$HOME/hf")
	if err := os.MkdirAll(filepath.Join(home, "hf"), 0o777); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(home, "hf", "token"), []byte("hf_file\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("HF_ENDPOINT", "http://hub.test/")
	check("http://hub.test", filepath.Join(home, "hf", "hub"), "hf_file", false)
	t.Setenv("HF_TOKEN", " hf_variable\r\n")
	t.Setenv("HF_HUB_OFFLINE", "on")
	t.Setenv("HF_HUB_CACHE", home)
	check("http://hub.test", home, "hf_variable", true)
	t.Setenv("HF_TOKEN", "two words")
	if _, err := FromEnvironment(); err == nil || strings.Contains(err.Error(), "two words") {
		t.Errorf("a token that is none: %v", err)
	}
}

func TestRetryAfter(t *testing.T) {
	for value, want := range map[string]time.Duration{"": 0, "7": 7 * time.Second, "-7": 0, "999999": longestWait, "soon": 0, "Mon, 02 Jan 2006 15:04:05 GMT": 0} {
		if got := retryAfter(value); got != want {
			t.Errorf("%q: %v, want %v", value, got, want)
		}
	}
}
