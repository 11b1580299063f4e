package hub

// Requests, and what their failures mean.

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
)

const (
	maxRedirects = 10
	maxTries     = 6                // without a byte of progress
	idleTime     = 60 * time.Second // without a byte, after which a connection counts as broken
	longestWait  = 5 * time.Minute
)

func newHTTP() *http.Client {
	transport := http.DefaultTransport.(*http.Transport).Clone() // with its proxies from the environment
	transport.ResponseHeaderTimeout = idleTime
	transport.MaxIdleConnsPerHost = 8
	transport.DisableCompression = true // the bytes of files are wanted as they are
	return &http.Client{Transport: transport, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
}

// own reports whether an address has the endpoint's origin.
func (c *Client) own(u *url.URL) bool {
	e, err := url.Parse(c.Endpoint)
	return err == nil && u.Scheme == e.Scheme && strings.EqualFold(u.Host, e.Host)
}

// passing is a failure that another try may not have.
type passing struct {
	err   error
	after time.Duration // that the server asked to wait, or 0
}

func (e *passing) Error() string { return e.err.Error() }
func (e *passing) Unwrap() error { return e.err }

// broken is the error of a connection.
func broken(err error) error {
	if errors.Is(err, context.Canceled) {
		return err
	}
	return &passing{err: fmt.Errorf("the connection broke: %w", err)}
}

// retry runs try until it succeeds, or fails for good, or has failed as often in a row as maxTries.
// A try that says it got further begins the count anew.
func (c *Client) retry(ctx context.Context, what string, try func() (further bool, err error)) error {
	wait := time.Second
	for left := maxTries; ; {
		further, err := try()
		if err == nil {
			return nil
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if further {
			left, wait = maxTries, time.Second
		}
		var p *passing
		if left--; left == 0 || !errors.As(err, &p) {
			return err
		}
		// A little chance keeps workers that failed together from coming back together.
		pause := max(p.after, wait+rand.N(wait/4))
		wait = min(2*wait, 30*time.Second)
		c.notice("%s: %v; trying again in %s", what, err, pause.Round(time.Second))
		if err := c.wait(ctx, pause); err != nil {
			return err
		}
	}
}

// get asks for an address and follows redirects: with stay only those to the endpoint itself, and
// with the token only there. The answer has status 200 or 206; the caller calls cancel when done with
// its body, which fails where nothing comes for idleTime. Headers in which the hub describes a file
// that another server holds are kept from the answer that named that server.
func (c *Client) get(ctx context.Context, address, byteRange string, stay bool) (resp *http.Response, cancel func(), err error) {
	u, err := url.Parse(address)
	if err != nil {
		return nil, nil, fmt.Errorf("%w: %q is no address", ErrFormat, address)
	}
	described := http.Header{}
	for range maxRedirects {
		resp, cancel, err = c.send(ctx, u, byteRange)
		if err != nil {
			return nil, nil, err
		}
		for _, name := range []string{"X-Repo-Commit", "X-Linked-Etag", "X-Linked-Size"} {
			if v := resp.Header.Get(name); v != "" && described.Get(name) == "" && c.own(u) {
				described.Set(name, v)
			}
		}
		switch resp.StatusCode {
		case http.StatusMovedPermanently, http.StatusFound, http.StatusSeeOther, http.StatusTemporaryRedirect, http.StatusPermanentRedirect:
			to, err := u.Parse(resp.Header.Get("Location"))
			cancel()
			if err != nil || resp.Header.Get("Location") == "" || to.Scheme != "http" && to.Scheme != "https" {
				return nil, nil, fmt.Errorf("%w: %s redirects to %q", ErrFormat, u.Host, resp.Header.Get("Location"))
			}
			if stay && !c.own(to) {
				return nil, nil, fmt.Errorf("%w: it redirects to %s, which is another host; if that is the hub, set HF_ENDPOINT to it", ErrFormat, to.Host)
			}
			u = to
		case http.StatusOK, http.StatusPartialContent:
			for name, v := range described {
				resp.Header[name] = v
			}
			return resp, cancel, nil
		default:
			err := c.refused(resp, u, byteRange)
			cancel()
			return nil, nil, err
		}
	}
	return nil, nil, fmt.Errorf("%w: more than %d redirects from %s", ErrFormat, maxRedirects, address)
}

// send makes one request.
func (c *Client) send(outer context.Context, u *url.URL, byteRange string) (*http.Response, func(), error) {
	ctx, stop := context.WithCancelCause(outer)
	idle := time.AfterFunc(idleTime, func() { stop(fmt.Errorf("nothing came for %s", idleTime)) })
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		idle.Stop()
		stop(nil)
		return nil, nil, fmt.Errorf("%w: %q is no address", ErrFormat, u.String())
	}
	req.Header.Set("User-Agent", "graft")
	req.Header.Set("Accept-Encoding", "identity")
	if byteRange != "" {
		req.Header.Set("Range", byteRange)
	}
	if c.Token != "" && c.own(u) {
		req.Header.Set("Authorization", "Bearer "+c.Token)
	}
	resp, err := c.http.Do(req)
	if err != nil {
		if ctx.Err() != nil && outer.Err() == nil {
			err = context.Cause(ctx)
		}
		idle.Stop()
		stop(nil)
		return nil, nil, c.unreachable(u, err)
	}
	resp.Body = &watched{resp.Body, ctx, idle}
	return resp, func() {
		idle.Stop()
		stop(nil)
		resp.Body.Close()
	}, nil
}

// watched puts off the end of idle time with every read.
type watched struct {
	io.ReadCloser
	ctx  context.Context
	idle *time.Timer
}

func (w *watched) Read(p []byte) (int, error) {
	n, err := w.ReadCloser.Read(p)
	if n > 0 {
		w.idle.Reset(idleTime)
	}
	if err != nil && err != io.EOF && w.ctx.Err() != nil {
		err = context.Cause(w.ctx)
	}
	return n, err
}

// unreachable explains a request that got no answer.
func (c *Client) unreachable(u *url.URL, err error) error {
	if errors.Is(err, context.Canceled) {
		return err
	}
	var ue *url.Error
	if errors.As(err, &ue) {
		err = ue.Err // without the address, whose query may be a signature
	}
	var dns *net.DNSError
	if errors.As(err, &dns) && !dns.Temporary() {
		return fmt.Errorf("cannot reach %s: %w; check the network, or set HF_ENDPOINT to a mirror, or HF_HUB_OFFLINE=1 to use what was pulled before", u.Host, err)
	}
	return &passing{err: fmt.Errorf("cannot reach %s: %w; check the network, or set HF_HUB_OFFLINE=1 to use what was pulled before", u.Host, err)}
}

// refused explains an answer that is none.
func (c *Client) refused(resp *http.Response, u *url.URL, byteRange string) error {
	code, says := resp.Header.Get("X-Error-Code"), clip(resp.Header.Get("X-Error-Message"))
	if says == "" {
		says = http.StatusText(resp.StatusCode)
	}
	status := fmt.Sprintf("status %d (%s)", resp.StatusCode, says)
	if !c.own(u) { // a server that stores files
		status += " from " + u.Host
	}
	token := "set HF_TOKEN to a token with read access, from " + c.Endpoint + "/settings/tokens"
	if c.Token != "" {
		token = "the token in use may not read it, or has expired; make another at " + c.Endpoint + "/settings/tokens"
	}
	switch {
	case code == "RevisionNotFound":
		return fmt.Errorf("%w: the repository has no such revision; --revision takes a branch, a tag or a commit", ErrNotFound)
	case code == "EntryNotFound":
		return fmt.Errorf("%w: the repository has no such file at this commit", ErrNotFound)
	case code == "GatedRepo":
		return fmt.Errorf("%w: the repository is gated (%s): agree to its terms on its page at the hub, then %s", ErrAccess, says, token)
	case code == "RepoNotFound", resp.StatusCode == http.StatusUnauthorized && c.own(u):
		kind := ErrNotFound
		if resp.StatusCode == http.StatusUnauthorized {
			kind = ErrAccess // the hub says so of repositories that do not exist, too
		}
		return fmt.Errorf("%w: there is no such repository, or it is private or gated: check the name; if it is not public, %s", kind, token)
	case resp.StatusCode == http.StatusForbidden && c.own(u):
		return fmt.Errorf("%w: %s: agree to the repository's terms on its page at the hub, if it has any; %s", ErrAccess, status, token)
	case resp.StatusCode == http.StatusNotFound:
		return fmt.Errorf("%w: %s; check the name, and HF_ENDPOINT if it is set", ErrNotFound, status)
	case resp.StatusCode == http.StatusRequestedRangeNotSatisfiable && byteRange != "":
		return errRange
	case resp.StatusCode == http.StatusRequestTimeout, resp.StatusCode == http.StatusTooManyRequests, resp.StatusCode >= 500,
		!c.own(u) && resp.StatusCode == http.StatusForbidden: // a signed address that ran out
		return &passing{err: fmt.Errorf("%w: %s", ErrFormat, status), after: retryAfter(resp.Header.Get("Retry-After"))}
	}
	return fmt.Errorf("%w: %s", ErrFormat, status)
}

// errRange is the answer to a range that a file does not have.
var errRange = errors.New("no such range")

// retryAfter reads how long a server asks to wait: seconds, or a date.
func retryAfter(value string) time.Duration {
	d := time.Duration(0)
	if n, err := strconv.ParseInt(value, 10, 32); err == nil {
		d = time.Duration(n) * time.Second
	} else if at, err := http.ParseTime(value); err == nil {
		d = time.Until(at)
	}
	return min(max(d, 0), longestWait)
}

// clip shortens what a server says for a message.
func clip(s string) string {
	if len(s) > 300 {
		return s[:300] + "…"
	}
	return s
}
