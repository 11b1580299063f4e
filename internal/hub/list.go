package hub

// What the hub says a repository has.

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"

	"github.com/go-json-experiment/json"
)

// Limits on what a hub may say; repositories of the largest models stay far below.
const (
	maxPage  = 16 << 20 // bytes of an answer
	maxPages = 1000
	maxFiles = 100_000
	maxSize  = 1 << 46 // bytes of a file
)

// File is a file of a repository.
type File struct {
	Path string // with slashes
	Size int64  // in bytes
	Hash string // SHA-256 in hex of a file that is stored apart (LFS), else the SHA-1 of its git blob

	// What the cache's list of files says besides.
	blob   string // git's name of what the repository itself holds: the file, or a pointer to it
	listed int64  // the size that stands beside blob
	xet    string // name of the file in the store of chunks, "" where it is not there
}

// LFS reports whether the file is stored apart, with a SHA-256.
func (f *File) LFS() bool { return len(f.Hash) == 64 }

// apiURL is an address of the hub's API for a repository.
func (c *Client) apiURL(repo string, more ...string) string {
	u := c.Endpoint + "/api/models/" + repo
	for _, m := range more {
		u += "/" + m
	}
	return u
}

// fileURL is where a file of a commit is downloaded from.
func (c *Client) fileURL(repo, commit, name string) string {
	parts := strings.Split(name, "/")
	for i := range parts {
		parts[i] = url.PathEscape(parts[i])
	}
	return c.Endpoint + "/" + repo + "/resolve/" + commit + "/" + strings.Join(parts, "/")
}

// commit asks for the commit that a revision stands for.
func (c *Client) commit(ctx context.Context, repo, revision string) (string, error) {
	if commitHash.MatchString(revision) {
		return revision, nil
	}
	data, _, err := c.ask(ctx, c.apiURL(repo, "revision", url.PathEscape(revision)))
	if err != nil {
		return "", err
	}
	var info struct {
		SHA string `json:"sha"`
	}
	if err := json.Unmarshal(data, &info); err != nil {
		return "", fmt.Errorf("%w: what it says of the repository is no JSON (%v); HF_ENDPOINT may name something else than a hub", ErrFormat, err)
	}
	if !commitHash.MatchString(info.SHA) {
		return "", fmt.Errorf("%w: it gives no commit for revision %q; HF_ENDPOINT may name something else than a hub", ErrFormat, revision)
	}
	return info.SHA, nil
}

// list returns the files of a commit, sorted by path. Their paths are as the hub gives them.
func (c *Client) list(ctx context.Context, repo, commit string) ([]File, error) {
	var files []File
	next := c.apiURL(repo, "tree", commit) + "?recursive=true&expand=false"
	for page := 0; next != ""; page++ {
		if page == maxPages {
			return nil, fmt.Errorf("%w: the listing of files has more than %d pages", ErrFormat, maxPages)
		}
		data, header, err := c.ask(ctx, next)
		if err != nil {
			return nil, err
		}
		if files, err = parsePage(data, files); err != nil {
			return nil, err
		}
		if next, err = c.nextPage(header); err != nil {
			return nil, err
		}
	}
	return sortFiles(files)
}

var hexHash = regexp.MustCompile(`^(?:[0-9a-f]{40}|[0-9a-f]{64})$`)

// parsePage appends the files of one answer.
func parsePage(data []byte, files []File) ([]File, error) {
	var entries []struct {
		Type string `json:"type"`
		Path string `json:"path"`
		Size int64  `json:"size"`
		OID  string `json:"oid"`
		LFS  *struct {
			OID  string `json:"oid"`
			Size int64  `json:"size"`
		} `json:"lfs"`
		Xet string `json:"xetHash"`
	}
	if err := json.Unmarshal(data, &entries); err != nil {
		return nil, fmt.Errorf("%w: the listing of files: %v", ErrFormat, err)
	}
	for _, e := range entries {
		if e.Type != "file" {
			continue // a folder: its files have entries of their own
		}
		f := File{Path: e.Path, Size: e.Size, Hash: e.OID, blob: e.OID, listed: e.Size}
		if e.LFS != nil {
			f.Size, f.Hash = e.LFS.Size, e.LFS.OID
		}
		if hexHash.MatchString(e.Xet) {
			f.xet = e.Xet
		}
		if !hexHash.MatchString(f.Hash) || !hexHash.MatchString(f.blob) || f.LFS() != (e.LFS != nil) || f.Size < 0 || f.Size > maxSize {
			return nil, fmt.Errorf("%w: the listing gives %q the size %d and the hash %q", ErrFormat, f.Path, f.Size, f.Hash)
		}
		if len(files) == maxFiles {
			return nil, fmt.Errorf("%w: the listing has more than %d files", ErrFormat, maxFiles)
		}
		files = append(files, f)
	}
	return files, nil
}

// sortFiles sorts, and refuses a path that stands twice or is also a folder, and a content of two sizes.
func sortFiles(files []File) ([]File, error) {
	slices.SortFunc(files, func(a, b File) int { return cmp.Compare(a.Path, b.Path) })
	names, sizes := map[string]bool{}, map[string]int64{}
	for _, f := range files {
		if size, known := sizes[f.Hash]; known && size != f.Size {
			return nil, fmt.Errorf("%w: the listing gives one hash to %q and to a file of another size", ErrFormat, f.Path)
		}
		sizes[f.Hash] = f.Size
		if names[f.Path] {
			return nil, fmt.Errorf("%w: the listing has %q twice", ErrFormat, f.Path)
		}
		names[f.Path] = true
	}
	for _, f := range files {
		for i := range f.Path {
			if f.Path[i] == '/' && names[f.Path[:i]] {
				return nil, fmt.Errorf("%w: the listing has %q as a file and as a folder", ErrFormat, f.Path[:i])
			}
		}
	}
	return files, nil
}

var nextLink = regexp.MustCompile(`<([^>]*)>\s*;(?:[^,"]|"[^"]*")*\brel="?next"?`)

// nextPage is the address in a Link header. One on another host is asked of the endpoint: a mirror
// may pass on what the hub behind it said, and nobody else is to be asked with the token.
func (c *Client) nextPage(header http.Header) (string, error) {
	m := nextLink.FindStringSubmatch(strings.Join(header.Values("Link"), ", "))
	if m == nil {
		return "", nil
	}
	u, err := url.Parse(m[1])
	if err != nil {
		return "", fmt.Errorf("%w: the listing goes on at %q, which is no address", ErrFormat, m[1])
	}
	if u.Host != "" && c.own(u) {
		return u.String(), nil
	}
	if !strings.HasPrefix(u.Path, "/api/") {
		return "", fmt.Errorf("%w: the listing goes on at %q, which is not in the hub's API", ErrFormat, m[1])
	}
	return c.Endpoint + u.EscapedPath() + "?" + u.RawQuery, nil
}

// ask gets an answer of the API, trying again where that may help.
func (c *Client) ask(ctx context.Context, address string) (data []byte, header http.Header, err error) {
	err = c.retry(ctx, "asking the hub", func() (bool, error) {
		resp, cancel, err := c.get(ctx, address, "", true)
		if err != nil {
			return false, err
		}
		defer cancel()
		if data, err = io.ReadAll(io.LimitReader(resp.Body, maxPage+1)); err != nil {
			return false, broken(err)
		}
		if len(data) > maxPage {
			return false, fmt.Errorf("%w: it answers with more than %d bytes", ErrFormat, maxPage)
		}
		header = resp.Header
		return false, nil
	})
	return data, header, err
}
