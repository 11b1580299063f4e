package main

import (
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"
	"sync"
	"text/tabwriter"
	"time"

	"github.com/schollz/progressbar/v3"
	"golang.org/x/term"
)

// stdout takes results. It keeps the first error, so that a full disk behind a redirection fails the
// command and not only its output.
var stdout = &results{w: os.Stdout}

type results struct {
	w   io.Writer
	err error
}

func (r *results) Write(p []byte) (int, error) {
	n, err := r.w.Write(p)
	if err != nil && r.err == nil {
		r.err = fmt.Errorf("writing the result: %w", err)
	}
	return n, err
}

// printJSON writes a value to stdout for a script to read.
func printJSON(v any) error {
	e := json.NewEncoder(stdout)
	e.SetIndent("", "  ")
	e.SetEscapeHTML(false)
	return e.Encode(v)
}

// table writes aligned columns to stdout; cells of a row are separated by tabs.
type table struct{ w *tabwriter.Writer }

func newTable() table { return table{tabwriter.NewWriter(stdout, 0, 4, 2, ' ', 0)} }

func (t table) row(cells ...any) {
	for i, c := range cells {
		if i > 0 {
			fmt.Fprint(t.w, "\t")
		}
		fmt.Fprint(t.w, c)
	}
	fmt.Fprintln(t.w)
}

func (t table) flush() { t.w.Flush() }

// onTerminal reports whether stderr is watched by a person.
func onTerminal() bool { return term.IsTerminal(int(os.Stderr.Fd())) }

// progress shows how far a long task is: a bar on a terminal, else a line now and then. Its methods
// may be called from several goroutines.
type progress struct {
	what  string
	bytes bool // what is counted are bytes, and their rate is shown
	mu    sync.Mutex
	bar   *progressbar.ProgressBar
	start time.Time
	last  time.Time
}

func newProgress(what string) *progress {
	return &progress{what: what, start: time.Now(), last: time.Now()}
}

// lineEvery is the time between lines where stderr is no terminal.
const lineEvery = 10 * time.Second

func (p *progress) update(done, total int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if onTerminal() {
		if p.bar == nil {
			p.bar = progressbar.NewOptions64(total, progressbar.OptionSetWriter(os.Stderr), progressbar.OptionSetDescription("graft: "+p.what),
				progressbar.OptionSetPredictTime(true), progressbar.OptionThrottle(100*time.Millisecond), progressbar.OptionClearOnFinish(), progressbar.OptionShowBytes(p.bytes))
		}
		_ = p.bar.Set64(done) // drawing is not worth failing for
		return
	}
	if time.Since(p.last) < lineEvery || done == 0 {
		return
	}
	p.last = time.Now()
	left := time.Duration(float64(time.Since(p.start)) / float64(done) * float64(total-done))
	rate := ""
	if p.bytes {
		rate = fmt.Sprintf("%s/s, ", size(int64(float64(done)/time.Since(p.start).Seconds())))
	}
	say("%s: %d %% done, %s%s left", p.what, 100*done/max(total, 1), rate, left.Round(time.Second))
}

func (p *progress) finish() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.bar != nil {
		_ = p.bar.Finish()
	}
}

// size writes a number of bytes for a person.
func size(n int64) string {
	switch f := float64(n); {
	case f >= 1e9:
		return fmt.Sprintf("%.2f GB", f/1e9)
	case f >= 1e6:
		return fmt.Sprintf("%.1f MB", f/1e6)
	case f >= 1e3:
		return fmt.Sprintf("%.1f kB", f/1e3)
	}
	return fmt.Sprintf("%d B", n)
}

// count writes a number of things for a person: 134.5M.
func count(n int64) string {
	switch f := float64(n); {
	case f >= 1e9:
		return fmt.Sprintf("%.2fB", f/1e9)
	case f >= 1e6:
		return fmt.Sprintf("%.1fM", f/1e6)
	case f >= 1e4:
		return fmt.Sprintf("%.1fk", f/1e3)
	}
	return fmt.Sprint(n)
}

// shape writes (576, 1536).
func shape(dims []int) string {
	parts := make([]string, len(dims))
	for i, d := range dims {
		parts[i] = fmt.Sprint(d)
	}
	return "(" + strings.Join(parts, ", ") + ")"
}

// sortedNames returns a map's keys in order.
func sortedNames[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }
