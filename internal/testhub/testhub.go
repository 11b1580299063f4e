// Package testhub is a Hugging Face hub for tests, on this machine's loopback: it lists and sends the
// files of repositories as the real one does, and can be made to fail.
//
// Files in LFS, those that end in .safetensors or .gguf or begin with the bytes "LFS", come from a second
// server by a redirect, as they come from other hosts there.
package testhub

import (
	"bytes"
	"crypto/sha1"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// Hub is a hub and the server that stores its large files.
type Hub struct {
	URL     string // of the hub
	Storage string // of the other server

	// Token, where set, is wanted for repositories that are private.
	Token string
	// PageSize is how many files one answer lists.
	PageSize int
	// Intercept, where set, sees each request first, and answers it where it returns true.
	Intercept func(w http.ResponseWriter, r *http.Request, stored bool) bool

	mu    sync.Mutex
	repos map[string]*Repo
	blobs map[string][]byte
	log   []string
}

// Repo is a repository with one commit.
type Repo struct {
	Commit  string
	Private bool
	Gated   bool
	Files   map[string][]byte
	// Entries, where set, is the listing in place of one made from Files.
	Entries []map[string]any
}

// Mend takes Intercept away, also while requests are under way.
func (h *Hub) Mend() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.Intercept = nil
}

// New starts a hub, which ends with the test.
func New(t testing.TB) *Hub {
	h := &Hub{PageSize: 3, repos: map[string]*Repo{}, blobs: map[string][]byte{}}
	hub, storage := httptest.NewServer(h.handler(false)), httptest.NewServer(h.handler(true))
	t.Cleanup(hub.Close)
	t.Cleanup(storage.Close)
	// The names differ, so that what is meant for one host is seen to be kept from the other.
	h.URL, h.Storage = hub.URL, strings.Replace(storage.URL, "127.0.0.1", "localhost", 1)
	return h
}

// Add puts a repository on the hub. Its commit follows from its content.
func (h *Hub) Add(name string, r *Repo) *Repo {
	h.mu.Lock()
	defer h.mu.Unlock()
	sum := sha1.New()
	for _, path := range sortedPaths(r.Files) {
		fmt.Fprintf(sum, "%s %s\n", path, GitHash(r.Files[path]))
		h.blobs[SHA256(r.Files[path])] = r.Files[path]
	}
	r.Commit = hex.EncodeToString(sum.Sum(nil))
	h.repos[name] = r
	return r
}

// Log returns the requests so far, "METHOD PATH", those to the storage behind "storage ", and with
// " range=…" and " token" where they have these; and forgets them.
func (h *Hub) Log() []string {
	h.mu.Lock()
	defer h.mu.Unlock()
	log := h.log
	h.log = nil
	slices.Sort(log)
	return log
}

// GitHash is the name that git gives a file.
func GitHash(data []byte) string {
	sum := sha1.Sum(append(fmt.Appendf(nil, "blob %d\x00", len(data)), data...))
	return hex.EncodeToString(sum[:])
}

// SHA256 is the hash of a file in LFS, in hex.
func SHA256(data []byte) string {
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:])
}

// LFS reports whether a file is stored apart.
func LFS(path string, data []byte) bool {
	return strings.HasSuffix(path, ".safetensors") || strings.HasSuffix(path, ".gguf") || bytes.HasPrefix(data, []byte("LFS"))
}

func pointer(data []byte) []byte {
	return fmt.Appendf(nil, "version https://git-lfs.github.com/spec/v1\noid sha256:%s\nsize %d\n", SHA256(data), len(data))
}

func sortedPaths(files map[string][]byte) []string {
	var out []string
	for path := range files {
		out = append(out, path)
	}
	slices.Sort(out)
	return out
}

func (h *Hub) handler(stored bool) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		line := r.Method + " " + r.URL.Path
		if stored {
			line = "storage " + line
		}
		if v := r.Header.Get("Range"); v != "" {
			line += " range=" + strings.TrimPrefix(v, "bytes=")
		}
		if r.Header.Get("Authorization") != "" {
			line += " token"
		}
		h.mu.Lock()
		h.log = append(h.log, line)
		intercept := h.Intercept
		h.mu.Unlock()
		if intercept != nil && intercept(w, r, stored) {
			return
		}
		if stored {
			h.mu.Lock()
			data, ok := h.blobs[strings.TrimPrefix(r.URL.Path, "/")]
			h.mu.Unlock()
			if !ok || r.URL.Query().Get("signature") == "" {
				w.WriteHeader(http.StatusForbidden)
				return
			}
			w.Header().Set("ETag", `"of the storage"`)
			http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(data))
			return
		}
		h.serve(w, r)
	})
}

func refuse(w http.ResponseWriter, status int, code, message string) {
	w.Header().Set("X-Error-Code", code)
	w.Header().Set("X-Error-Message", message)
	w.WriteHeader(status)
}

// serve answers as the hub.
func (h *Hub) serve(w http.ResponseWriter, r *http.Request) {
	api := strings.HasPrefix(r.URL.Path, "/api/models/")
	parts := strings.SplitN(strings.TrimPrefix(strings.TrimPrefix(r.URL.EscapedPath(), "/api/models"), "/"), "/", 5)
	if len(parts) < 4 {
		refuse(w, http.StatusNotFound, "", "")
		return
	}
	name, verb := parts[0]+"/"+parts[1], parts[2]
	revision, err := url.PathUnescape(parts[3])
	h.mu.Lock()
	repo := h.repos[name]
	h.mu.Unlock()
	authorized := h.Token != "" && r.Header.Get("Authorization") == "Bearer "+h.Token
	switch {
	case err != nil:
		w.WriteHeader(http.StatusBadRequest)
	case repo == nil && !authorized, repo != nil && repo.Private && !authorized:
		refuse(w, http.StatusUnauthorized, "RepoNotFound", "Repository not found")
	case repo == nil:
		refuse(w, http.StatusNotFound, "RepoNotFound", "Repository not found")
	case revision != repo.Commit && revision != "main" && revision != "refs/pr/1":
		refuse(w, http.StatusNotFound, "RevisionNotFound", "Invalid rev id: "+revision)
	case api && verb == "revision":
		_ = json.NewEncoder(w).Encode(map[string]any{"id": name, "sha": repo.Commit, "private": repo.Private, "tags": []string{}, "downloads": 0, "likes": 0, "siblings": []any{}})
	case api && verb == "tree":
		h.tree(w, r, repo)
	case verb == "resolve" && repo.Gated && !authorized:
		refuse(w, http.StatusForbidden, "GatedRepo", "Access to model "+name+" is restricted")
	case verb == "resolve" && len(parts) == 5:
		path, _ := url.PathUnescape(parts[4])
		h.resolve(w, r, repo, path)
	default:
		refuse(w, http.StatusNotFound, "", "")
	}
}

// tree lists files, some on each page.
func (h *Hub) tree(w http.ResponseWriter, r *http.Request, repo *Repo) {
	entries := repo.Entries
	if entries == nil {
		folders := map[string]bool{}
		for _, path := range sortedPaths(repo.Files) {
			if i := strings.LastIndexByte(path, '/'); i > 0 && !folders[path[:i]] {
				folders[path[:i]] = true
				entries = append(entries, map[string]any{"type": "directory", "path": path[:i], "oid": GitHash(nil), "size": 0})
			}
			entries = append(entries, Entry(path, repo.Files[path]))
		}
	}
	from, _ := strconv.Atoi(r.URL.Query().Get("cursor"))
	from = min(from, len(entries))
	to := min(from+h.PageSize, len(entries))
	if to < len(entries) {
		w.Header().Set("Link", fmt.Sprintf(`<%s%s?recursive=true&expand=false&cursor=%d>; rel="next"`, h.URL, r.URL.EscapedPath(), to))
	}
	_ = json.NewEncoder(w).Encode(entries[from:to])
}

// Entry is a file's entry in a listing.
func Entry(path string, data []byte) map[string]any {
	e := map[string]any{"type": "file", "path": path, "oid": GitHash(data), "size": len(data)}
	if LFS(path, data) {
		p := pointer(data)
		e["oid"] = GitHash(p)
		e["lfs"] = map[string]any{"oid": SHA256(data), "size": len(data), "pointerSize": len(p)}
	}
	return e
}

// resolve sends a file, or says where it is stored.
func (h *Hub) resolve(w http.ResponseWriter, r *http.Request, repo *Repo, path string) {
	w.Header().Set("X-Repo-Commit", repo.Commit)
	data, ok := repo.Files[path]
	if !ok {
		refuse(w, http.StatusNotFound, "EntryNotFound", "Entry not found")
		return
	}
	if !LFS(path, data) {
		w.Header().Set("ETag", `"`+GitHash(data)+`"`)
		http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(data))
		return
	}
	w.Header().Set("X-Linked-Etag", `"`+SHA256(data)+`"`)
	w.Header().Set("X-Linked-Size", strconv.Itoa(len(data)))
	w.Header().Set("Location", h.Storage+"/"+SHA256(data)+"?signature=x")
	w.WriteHeader(http.StatusFound)
}
