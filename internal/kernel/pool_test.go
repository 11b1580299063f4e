package kernel

import (
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// marks counts how often every index was run, and checks range borders.
type marks struct {
	t     *testing.T
	grain int
	count []int32
	nest  bool
}

func (m *marks) Run(lo, hi int) {
	if lo%m.grain != 0 || hi%m.grain != 0 && hi != len(m.count) {
		m.t.Errorf("range [%d, %d) of %d is not at multiples of %d", lo, hi, len(m.count), m.grain)
	}
	for i := lo; i < hi; i++ {
		m.count[i]++ // the race detector sees an index run twice at once
	}
	if m.nest {
		inner := &marks{t: m.t, grain: 3, count: make([]int32, 100)}
		Parallel(100, 3, inner)
		inner.check()
	}
}

func (m *marks) check() {
	m.t.Helper()
	for i, c := range m.count {
		if c != 1 {
			m.t.Fatalf("n=%d grain=%d: index %d ran %d times", len(m.count), m.grain, i, c)
		}
	}
}

// withThreads runs test as a subtest for several numbers of threads.
func withThreads(t *testing.T, test func(t *testing.T)) {
	t.Helper()
	before := Threads()
	defer SetThreads(before)
	for _, n := range []int{1, 2, 3, 7} {
		SetThreads(n)
		t.Run(string(rune('0'+n)), test)
	}
}

func TestParallelCoversOnce(t *testing.T) {
	withThreads(t, func(t *testing.T) {
		for _, n := range []int{0, 1, 2, 5, 64, 1000} {
			for _, grain := range []int{1, 7, 64} {
				m := &marks{t: t, grain: grain, count: make([]int32, n), nest: n == 64}
				Parallel(n, grain, m)
				m.check()
			}
		}
	})
}

func TestParallelFromManyGoroutines(t *testing.T) {
	withThreads(t, func(t *testing.T) {
		var wg sync.WaitGroup
		for range 4 {
			wg.Go(func() {
				for range 50 {
					m := &marks{t: t, grain: 2, count: make([]int32, 101)}
					Parallel(101, 2, m)
					m.check()
				}
			})
		}
		wg.Wait()
	})
}

func TestParallelOnOneProcessor(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	TestParallelCoversOnce(t)
}

// sleepy is slow in its last piece, so that the caller has to wait asleep.
type sleepy struct{ sum atomic.Int64 }

func (s *sleepy) Run(lo, hi int) {
	if hi == 64 {
		time.Sleep(3 * spinTime)
	}
	s.sum.Add(int64(hi - lo))
}

func TestParallelSleepsAndWakes(t *testing.T) {
	before := Threads()
	defer SetThreads(before)
	SetThreads(3)
	for range 20 {
		var s sleepy
		Parallel(64, 1, &s)
		if s.sum.Load() != 64 {
			t.Fatalf("ran %d of 64", s.sum.Load())
		}
		time.Sleep(2 * spinTime) // workers fall asleep
	}
}

// clumsy panics in the caller's piece; the helper's ends after that.
type clumsy struct {
	ran      atomic.Int64
	panicked chan struct{}
}

func (c *clumsy) Run(lo, hi int) {
	if lo == 0 {
		close(c.panicked)
		panic("clumsy")
	}
	<-c.panicked
	time.Sleep(spinTime)
	c.ran.Add(1)
}

func TestParallelSurvivesPanic(t *testing.T) {
	before := Threads()
	defer SetThreads(before)
	SetThreads(2)
	for range 10 {
		c := clumsy{panicked: make(chan struct{})}
		func() {
			defer func() {
				if recover() == nil {
					t.Error("the panic was lost")
				}
			}()
			Parallel(2, 1, &c)
		}()
		ended := c.ran.Load()
		m := &marks{t: t, grain: 1, count: make([]int32, 100)}
		Parallel(100, 1, m)
		m.check()
		if c.ran.Load() != ended {
			t.Fatal("a helper went on after Parallel returned")
		}
	}
}

type nothing struct{}

func (*nothing) Run(lo, hi int) {}

func TestParallelAllocatesNothing(t *testing.T) {
	before := Threads()
	defer SetThreads(before)
	SetThreads(3)
	if n := testing.AllocsPerRun(100, func() { Parallel(1000, 1, &nothing{}) }); n != 0 {
		t.Fatalf("%v allocations a call", n)
	}
}

func BenchmarkParallelEmpty(b *testing.B) {
	for b.Loop() {
		Parallel(1000, 1, &nothing{})
	}
}
