package hub

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/graftml/graft/internal/testhub"
)

// parts returns the part files of the cache and how long each is.
func parts(t *testing.T, c *Client) map[string]int {
	t.Helper()
	out := map[string]int{}
	for path, data := range tree(t, c.Cache) {
		if strings.HasSuffix(path, ".incomplete") {
			out[filepath.Base(path)] = len(data)
		}
	}
	return out
}

const large = "model.safetensors"

// TestFailures hurts the transfer of one file in many ways. What comes of it is said; what is worth
// keeping stays, and a pull without the fault then completes from there.
func TestFailures(t *testing.T) {
	data := tiny()[large]
	size := len(data)
	partName := testhub.SHA256(data) + ".incomplete"
	half := size / 2
	stored := func(r *http.Request, isStored bool) bool {
		return isStored && r.URL.Path == "/"+testhub.SHA256(data)
	}
	for _, f := range []struct {
		name  string
		fault func(w http.ResponseWriter, r *http.Request, try int64) bool // of the storage's answer for the file
		hub   func(w http.ResponseWriter, r *http.Request) bool            // of the hub's answer for it
		says  string                                                       // "" for success after more tries
		kept  int                                                          // bytes of the part file after a failure
		kind  error
	}{
		{name: "cut off each time", says: "bytes stay in", kept: half, kind: ErrFormat,
			fault: func(w http.ResponseWriter, r *http.Request, try int64) bool {
				if try > 1 {
					w.WriteHeader(http.StatusServiceUnavailable)
					return true
				}
				w.Header().Set("Content-Length", strconv.Itoa(size))
				_, _ = w.Write(data[:half])
				panic(http.ErrAbortHandler)
			}},
		{name: "cut off, then whole", fault: func(w http.ResponseWriter, r *http.Request, try int64) bool {
			if try > 5 {
				return false
			}
			first, _ := strconv.Atoi(strings.TrimSuffix(strings.TrimPrefix(r.Header.Get("Range"), "bytes="), "-"))
			if first > 0 {
				w.Header().Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", first, size-1, size))
			}
			w.Header().Set("Content-Length", strconv.Itoa(size-first))
			if first > 0 {
				w.WriteHeader(http.StatusPartialContent)
			}
			_, _ = w.Write(data[first : first+100_000])
			panic(http.ErrAbortHandler)
		}},
		{name: "ends early without a length", says: "bytes stay in", kept: half, kind: ErrFormat,
			fault: func(w http.ResponseWriter, r *http.Request, try int64) bool {
				if try > 1 {
					w.WriteHeader(http.StatusBadGateway)
					return true
				}
				w.(http.Flusher).Flush()
				_, _ = w.Write(data[:half])
				return true
			}},
		{name: "too short", says: "it sends 100 bytes where its listing leaves", kind: ErrFormat,
			fault: func(w http.ResponseWriter, r *http.Request, _ int64) bool {
				w.Header().Set("Content-Length", "100")
				_, _ = w.Write(data[:100])
				return true
			}},
		{name: "too long", says: "it sends more than", kept: size, kind: ErrFormat,
			fault: func(w http.ResponseWriter, r *http.Request, _ int64) bool {
				w.(http.Flusher).Flush()
				_, _ = w.Write(append(slices.Clip(data), "more"...))
				return true
			}},
		{name: "other bytes", says: "thrown away", kind: ErrFormat,
			fault: func(w http.ResponseWriter, r *http.Request, _ int64) bool {
				other := bytes.Clone(data)
				other[half] ^= 1
				_, _ = w.Write(other)
				return true
			}},
		{name: "no ranges", fault: func(w http.ResponseWriter, r *http.Request, try int64) bool {
			w.Header().Set("Content-Length", strconv.Itoa(size))
			if try == 1 {
				_, _ = w.Write(data[:half])
				panic(http.ErrAbortHandler)
			}
			_, _ = w.Write(data)
			return true
		}},
		{name: "another range", says: "it sends \"bytes 5-", kept: half, kind: ErrFormat,
			fault: func(w http.ResponseWriter, r *http.Request, try int64) bool {
				if try == 1 {
					w.Header().Set("Content-Length", strconv.Itoa(size))
					_, _ = w.Write(data[:half])
					panic(http.ErrAbortHandler)
				}
				w.Header().Set("Content-Range", fmt.Sprintf("bytes 5-%d/%d", size-1, size))
				w.WriteHeader(http.StatusPartialContent)
				return true
			}},
		{name: "range not satisfiable", fault: func(w http.ResponseWriter, r *http.Request, try int64) bool {
			switch try {
			case 1:
				w.Header().Set("Content-Length", strconv.Itoa(size))
				_, _ = w.Write(data[:half])
				panic(http.ErrAbortHandler)
			case 2:
				w.WriteHeader(http.StatusRequestedRangeNotSatisfiable)
				return true
			}
			return false
		}},
		{name: "busy, then there", fault: func(w http.ResponseWriter, r *http.Request, try int64) bool {
			if try < 4 {
				w.Header().Set("Retry-After", "1")
				w.WriteHeader(http.StatusTooManyRequests)
				return true
			}
			return false
		}},
		{name: "always busy", says: "status 500", kind: ErrFormat,
			fault: func(w http.ResponseWriter, r *http.Request, _ int64) bool {
				w.WriteHeader(http.StatusInternalServerError)
				return true
			}},
		{name: "gone from the storage", says: "status 404", kind: ErrNotFound,
			fault: func(w http.ResponseWriter, r *http.Request, _ int64) bool {
				w.WriteHeader(http.StatusNotFound)
				return true
			}},
		{name: "compressed", says: "gzip", kind: ErrFormat,
			fault: func(w http.ResponseWriter, r *http.Request, _ int64) bool {
				w.Header().Set("Content-Encoding", "gzip")
				_, _ = w.Write(data)
				return true
			}},
		{name: "another hash promised", says: "its hash is to be", kind: ErrFormat,
			hub: func(w http.ResponseWriter, r *http.Request) bool {
				w.Header().Set("X-Linked-Etag", `"`+strings.Repeat("0", 64)+`"`)
				w.Header().Set("Location", "http://"+r.Host+"/nowhere")
				w.WriteHeader(http.StatusFound)
				return true
			}},
		{name: "redirects for ever", says: "redirects", kind: ErrFormat,
			hub: func(w http.ResponseWriter, r *http.Request) bool {
				w.Header().Set("Location", r.URL.String())
				w.WriteHeader(http.StatusFound)
				return true
			}},
		{name: "redirects to a file", says: "redirects to", kind: ErrFormat,
			hub: func(w http.ResponseWriter, r *http.Request) bool {
				w.Header().Set("Location", "file:///etc/passwd")
				w.WriteHeader(http.StatusFound)
				return true
			}},
	} {
		t.Run(f.name, func(t *testing.T) {
			h, repo, c := setup(t)
			var tries atomic.Int64
			h.Intercept = func(w http.ResponseWriter, r *http.Request, isStored bool) bool {
				if f.fault != nil && stored(r, isStored) {
					return f.fault(w, r, tries.Add(1))
				}
				if f.hub != nil && !isStored && strings.HasSuffix(r.URL.Path, large) {
					if strings.Contains(r.URL.Path, "nowhere") {
						return false
					}
					return f.hub(w, r)
				}
				return false
			}
			if f.name == "another hash promised" {
				h.Intercept = func(w http.ResponseWriter, r *http.Request, isStored bool) bool {
					switch {
					case r.URL.Path == "/nowhere":
						w.Header().Set("Content-Length", strconv.Itoa(size))
						_, _ = w.Write(data)
						return true
					case !isStored && strings.HasSuffix(r.URL.Path, large):
						return f.hub(w, r)
					}
					return false
				}
			}
			_, err := c.Pull(t.Context(), Pull{Repo: name})
			if f.says == "" {
				if err != nil {
					t.Fatal(err)
				}
			} else {
				if err == nil || !strings.Contains(err.Error(), f.says) || !strings.Contains(err.Error(), large) || !errors.Is(err, f.kind) {
					t.Fatalf("%v, want %q", err, f.says)
				}
				if n := parts(t, c)[partName]; n != f.kept {
					t.Errorf("%d bytes are kept, want %d", n, f.kept)
				}
				if _, err := os.Stat(filepath.Join(c.Cache, "models--owner--tiny", "refs", "main")); err == nil {
					t.Error("main is said to be there")
				}
			}
			h.Mend()
			h.Log()
			got, err := c.Pull(t.Context(), Pull{Repo: name})
			if err != nil {
				t.Fatalf("without the fault: %v", err)
			}
			for path, data := range repo.Files {
				if read, err := os.ReadFile(filepath.Join(got.Path, path)); err != nil || !bytes.Equal(read, data) {
					t.Errorf("%s after all: %v", path, err)
				}
			}
			if want := fmt.Sprintf("storage GET /%s range=%d-", testhub.SHA256(data), f.kept); f.kept > 0 && f.kept < size && !slices.Contains(h.Log(), want) {
				t.Errorf("it did not go on at %d", f.kept)
			}
			if left := parts(t, c); len(left) > 0 {
				t.Errorf("part files stay: %v", left)
			}
		})
	}
}

// TestForeignPart has a part file of other bytes, as a killed run of something else may leave.
func TestForeignPart(t *testing.T) {
	for _, n := range []int{1000, 3 << 20, 4 << 20} {
		_, repo, c := setup(t)
		path := filepath.Join(c.Cache, "models--owner--tiny", "blobs", testhub.SHA256(repo.Files[large])+".incomplete")
		if err := os.MkdirAll(filepath.Dir(path), 0o777); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, make([]byte, n), 0o666); err != nil {
			t.Fatal(err)
		}
		got, err := c.Pull(t.Context(), Pull{Repo: name})
		if err != nil {
			t.Fatal(err)
		}
		if read, err := os.ReadFile(filepath.Join(got.Path, large)); err != nil || !bytes.Equal(read, repo.Files[large]) {
			t.Errorf("a foreign part of %d bytes: %v", n, err)
		}
	}
}

// TestInterrupt cancels a pull in the middle, as Ctrl-C does.
func TestInterrupt(t *testing.T) {
	h, repo, c := setup(t)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	half := len(repo.Files[large]) / 2
	h.Intercept = func(w http.ResponseWriter, r *http.Request, stored bool) bool {
		if !stored || r.URL.Path != "/"+testhub.SHA256(repo.Files[large]) {
			return false
		}
		w.Header().Set("Content-Length", strconv.Itoa(2*half))
		_, _ = w.Write(repo.Files[large][:half])
		w.(http.Flusher).Flush()
		for parts(t, c)[testhub.SHA256(repo.Files[large])+".incomplete"] < half {
			time.Sleep(time.Millisecond)
		}
		cancel()
		<-r.Context().Done()
		return true
	}
	out := filepath.Join(t.TempDir(), "out")
	_, err := c.Pull(ctx, Pull{Repo: name})
	if !errors.Is(err, context.Canceled) || !strings.Contains(err.Error(), "goes on from there") {
		t.Errorf("interrupted: %v", err)
	}
	if n := parts(t, c)[testhub.SHA256(repo.Files[large])+".incomplete"]; n != half {
		t.Errorf("%d bytes are kept, want %d", n, half)
	}
	h.Mend()
	if _, err := c.Pull(t.Context(), Pull{Repo: name, Out: out}); err != nil || !maps.Equal(tree(t, out), texts(repo.Files)) {
		t.Errorf("into a folder: %v", err)
	}
}

// TestInterruptedResume ends a download before it has read the part file of an earlier run, as
// another file's failure does. The part stays.
func TestInterruptedResume(t *testing.T) {
	data := tiny()[large]
	part := filepath.Join(t.TempDir(), "part")
	if err := os.WriteFile(part, data[:1000], 0o666); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	d := &download{file: &File{Path: large, Size: int64(len(data)), Hash: testhub.SHA256(data)}, part: part, moved: func(int64) {}}
	if err := d.run(ctx, ""); !errors.Is(err, context.Canceled) || !strings.Contains(err.Error(), "1000 of ") {
		t.Error(err)
	}
	if kept, err := os.ReadFile(part); err != nil || !bytes.Equal(kept, data[:1000]) {
		t.Errorf("%d bytes are kept, %v", len(kept), err)
	}
}
