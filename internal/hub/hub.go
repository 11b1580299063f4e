// Package hub downloads repositories from a Hugging Face hub.
//
// # Basics
//
// [FromEnvironment] makes a [Client] of the variables that Hugging Face's own
// tools read; [Client.Pull] downloads a repository and returns where it lies:
// a snapshot in the cache that those tools share, or a folder of plain files.
//
// What a hub says about a repository is fixed by one answer: the listing of a
// commit, with the size and hash of every file. Each file is checked against
// it, wherever its bytes come from: SHA-256 where the hub stores it apart
// (LFS), else the SHA-1 of a git blob. A download that breaks off leaves a
// part file, and the next pull goes on from there.
//
// # Caveats
//
// Only model repositories are known, and only the plain protocol: files that a
// hub keeps in chunks (Xet) come by its ordinary download address. The token
// goes to the endpoint's own origin and to no other, so not along a redirect
// to the servers that store files. A Client never asks for what the cache has;
// what is in the cache it trusts, as every reader of the cache does.
package hub

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// DefaultEndpoint is the hub that is asked where HF_ENDPOINT names no other.
const DefaultEndpoint = "https://huggingface.co"

// What kind of failure an error is; test with errors.Is.
var (
	// ErrNotFound marks a repository, revision or file that the hub does not have, or does not show.
	ErrNotFound = errors.New("not found")
	// ErrAccess marks a repository that needs a token, or an agreement with its terms.
	ErrAccess = errors.New("no access")
	// ErrFormat marks an answer that breaks the protocol: a listing that lies, a file of another length or hash.
	ErrFormat = errors.New("wrong answer")
	// ErrOffline marks what cannot be had without the hub.
	ErrOffline = errors.New("not in the cache")
)

// Client talks to one hub. It may be used by several goroutines at once.
type Client struct {
	Endpoint string // such as DefaultEndpoint, without a slash at its end
	Token    string // "" for none
	Cache    string // the folder of Hugging Face's cache ("…/huggingface/hub")
	Offline  bool   // nothing is asked of the hub, the cache answers

	// Notice, where not nil, is told what a user may want to know of while a pull runs: that a
	// download goes on after a break, or is tried again.
	Notice func(message string)

	http *http.Client
	wait func(ctx context.Context, d time.Duration) error // before another try
}

// New returns a client without a token for a hub and a cache.
func New(endpoint, cache string) (*Client, error) {
	u, err := url.Parse(endpoint)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.RawQuery != "" || u.User != nil {
		return nil, fmt.Errorf("hub: the endpoint %q is no address of a hub such as %s", endpoint, DefaultEndpoint)
	}
	return &Client{Endpoint: strings.TrimRight(endpoint, "/"), Cache: cache, http: newHTTP(), wait: sleep}, nil
}

// FromEnvironment returns the client that the environment describes, by the variables that
// huggingface_hub reads: HF_ENDPOINT; HF_TOKEN, else the file that HF_TOKEN_PATH names or
// "hf auth login" wrote; HF_HUB_CACHE, else HF_HOME, else the user's cache; HF_HUB_OFFLINE.
func FromEnvironment() (*Client, error) {
	endpoint := os.Getenv("HF_ENDPOINT")
	if endpoint == "" {
		endpoint = DefaultEndpoint
	}
	home, err := cacheHome()
	if err != nil {
		return nil, err
	}
	c, err := New(endpoint, firstOf(pathVariable("HF_HUB_CACHE"), pathVariable("HUGGINGFACE_HUB_CACHE"), filepath.Join(home, "hub")))
	if err != nil {
		return nil, fmt.Errorf("%w; set HF_ENDPOINT", err)
	}
	c.Offline = isTrue(firstOf(os.Getenv("HF_HUB_OFFLINE"), os.Getenv("TRANSFORMERS_OFFLINE")))
	c.Token = cleanToken(firstOf(os.Getenv("HF_TOKEN"), os.Getenv("HUGGING_FACE_HUB_TOKEN")))
	if c.Token == "" && !isTrue(os.Getenv("HF_HUB_DISABLE_IMPLICIT_TOKEN")) {
		file := firstOf(pathVariable("HF_TOKEN_PATH"), filepath.Join(home, "token"))
		if info, err := os.Stat(file); err == nil && info.Mode().IsRegular() && info.Size() < 1<<16 {
			data, err := os.ReadFile(file)
			if err != nil {
				return nil, fmt.Errorf("hub: reading the token: %w; set HF_TOKEN, or HF_TOKEN_PATH to another file", err)
			}
			c.Token = cleanToken(string(data))
		}
	}
	if strings.ContainsFunc(c.Token, func(r rune) bool { return r <= ' ' || r > '~' }) {
		return nil, errors.New("hub: the token has characters that no token has; set HF_TOKEN again")
	}
	return c, nil
}

// cacheHome is the folder that HF_HOME stands for.
func cacheHome() (string, error) {
	if home := pathVariable("HF_HOME"); home != "" {
		return home, nil
	}
	if xdg := pathVariable("XDG_CACHE_HOME"); xdg != "" {
		return filepath.Join(xdg, "huggingface"), nil
	}
	user, err := os.UserHomeDir()
	if err != nil {
		return "", fmt.Errorf("hub: finding the cache: %w; set HF_HOME", err)
	}
	return filepath.Join(user, ".cache", "huggingface"), nil
}

// pathVariable is a variable that holds a path, with ~ and variables in it put in.
func pathVariable(name string) string {
	path := os.ExpandEnv(os.Getenv(name))
	if rest, ok := strings.CutPrefix(path, "~"); ok && (rest == "" || os.IsPathSeparator(rest[0])) {
		if user, err := os.UserHomeDir(); err == nil {
			return user + rest
		}
	}
	return path
}

func firstOf(values ...string) string {
	for _, v := range values {
		if v != "" {
			return v
		}
	}
	return ""
}

func isTrue(value string) bool {
	switch strings.ToUpper(value) {
	case "1", "ON", "YES", "TRUE":
		return true
	}
	return false
}

func cleanToken(token string) string {
	return strings.TrimSpace(strings.NewReplacer("\r", "", "\n", "").Replace(token))
}

func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}

func (c *Client) notice(format string, args ...any) {
	if c.Notice != nil {
		c.Notice(fmt.Sprintf(format, args...))
	}
}
