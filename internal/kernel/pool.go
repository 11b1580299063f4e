package kernel

import (
	"runtime"
	"sync"
	"sync/atomic"
	"time"
)

// This file holds the worker pool that every kernel of the package, and
// package autograd, splits its work over. It decides only who does which
// outputs and when; sums never cross a range, so no result depends on it.

// Task is work on a range of independent outputs. Run is called from several
// goroutines at once with ranges that do not overlap, and what it writes must
// depend only on the range's members, not on where ranges begin.
type Task interface{ Run(lo, hi int) }

const (
	// piecesPerThread balances the load when a core is slowed by something
	// else: a worker that is done takes pieces from the others.
	piecesPerThread = 4
	// spinTime is how long a worker polls for the next job before it sleeps.
	// Waking a sleeping goroutine takes about 100 µs, as long as a small product.
	spinTime = 100 * time.Microsecond
)

// workers is the pool of the process. lock is held while a job runs.
var workers struct {
	lock    sync.Mutex
	threads atomic.Int32
	spawned []*worker
	job     job
	waiting atomic.Bool   // the caller sleeps on done
	done    chan struct{} // one token to a sleeping caller
}

func init() {
	workers.threads.Store(int32(runtime.GOMAXPROCS(0)))
	workers.done = make(chan struct{}, 1)
}

// job is one Parallel call: pieces of size grain·k, cut into one section for
// each thread, so that a thread keeps to neighbouring outputs until it must
// help another.
type job struct {
	task     Task
	n, piece int
	sections []section
}

// section is a run of pieces; next is the first not yet claimed.
type section struct {
	next atomic.Int64
	end  int64
	_    [48]byte // one cache line each: threads claim from their own
}

// work runs pieces until none is left, those of section own first.
func (j *job) work(own int) {
	for s := range j.sections {
		sec := &j.sections[(own+s)%len(j.sections)]
		for {
			p := sec.next.Add(1) - 1
			if p >= sec.end {
				break
			}
			lo := int(p) * j.piece
			j.task.Run(lo, min(lo+j.piece, j.n))
		}
	}
}

// The states of a worker. Only the caller makes an idle worker posted; the
// worker makes itself running, unless the caller took the job back before.
const (
	idle uint32 = iota
	posted
	running
)

type worker struct {
	_      [64]byte
	state  atomic.Uint32
	asleep atomic.Bool
	wake   chan struct{}
	_      [64]byte
}

// Threads is the number of goroutines that share the work of one call.
func Threads() int { return int(workers.threads.Load()) }

// SetThreads changes the number of goroutines that share the work of one
// call; below 1 it means 1. At the start it is GOMAXPROCS. Results do not
// depend on it.
func SetThreads(n int) { workers.threads.Store(int32(max(n, 1))) }

// Parallel calls t.Run over ranges that cover [0, n) once; every range but the
// last begins and ends at a multiple of grain, which is the least amount of
// work worth handing to another thread. It returns when all is done.
//
// The caller works too. When the pool is busy with another call, whether that
// of another goroutine or the one this call is nested in, everything runs in
// the calling goroutine. Nothing is allocated when t holds a pointer.
func Parallel(n, grain int, t Task) {
	if n <= 0 {
		return
	}
	grain = max(grain, 1)
	threads := min(Threads(), ceilDiv(n, grain))
	if threads == 1 || !workers.lock.TryLock() {
		t.Run(0, n)
		return
	}
	piece := ceilDiv(ceilDiv(n, threads*piecesPerThread), grain) * grain
	pieces := ceilDiv(n, piece)
	threads = min(threads, pieces)

	j := &workers.job
	j.task, j.n, j.piece = t, n, piece
	if cap(j.sections) < threads {
		j.sections = make([]section, threads)
	}
	j.sections = j.sections[:threads]
	for s := range j.sections {
		j.sections[s].next.Store(int64(s * pieces / threads))
		j.sections[s].end = int64((s + 1) * pieces / threads)
	}
	for len(workers.spawned) < threads-1 {
		w := &worker{wake: make(chan struct{}, 1)}
		workers.spawned = append(workers.spawned, w)
		go w.loop(len(workers.spawned))
	}
	helpers := workers.spawned[:threads-1]
	defer finish(helpers)
	for _, w := range helpers {
		w.state.Store(posted)
		if w.asleep.CompareAndSwap(true, false) {
			w.wake <- struct{}{}
		}
	}
	j.work(0)
}

// finish ends the job, also when the task panicked in the caller.
func finish(helpers []*worker) {
	for _, w := range helpers {
		// A helper that slept through the whole job is not waited for.
		w.state.CompareAndSwap(posted, idle)
	}
	await(helpers)
	workers.job.task = nil
	workers.lock.Unlock()
}

// await returns when no helper runs: it polls, then sleeps.
func await(helpers []*worker) {
	busy := func() bool {
		for _, w := range helpers {
			if w.state.Load() == running {
				return true
			}
		}
		return false
	}
	for !spinUntil(func() bool { return !busy() }) {
		workers.waiting.Store(true)
		// Either a helper that ends now sees waiting, or busy sees its end.
		if busy() || !workers.waiting.CompareAndSwap(true, false) {
			<-workers.done
		}
	}
}

// loop serves jobs as section id, polling for a while after each.
func (w *worker) loop(id int) {
	for {
		if !spinUntil(func() bool { return w.state.Load() == posted }) {
			w.asleep.Store(true)
			// Either the caller sees asleep and sends, or this sees its post.
			if w.state.Load() != posted || !w.asleep.CompareAndSwap(true, false) {
				<-w.wake
			}
		}
		if !w.state.CompareAndSwap(posted, running) {
			continue // taken back
		}
		workers.job.work(id)
		w.state.Store(idle)
		if workers.waiting.CompareAndSwap(true, false) {
			workers.done <- struct{}{}
		}
	}
}

// spinUntil polls cond for spinTime and reports whether it came true. On one
// processor polling would only hold up whoever makes it true.
func spinUntil(cond func() bool) bool {
	if cond() {
		return true
	}
	if runtime.GOMAXPROCS(0) == 1 {
		return false
	}
	start := time.Now()
	for {
		for range 32 {
			if cond() {
				return true
			}
			pause()
		}
		if time.Since(start) > spinTime {
			return false
		}
	}
}

// ceilDiv is ⌈a/b⌉ for a ≥ 0, b > 0.
func ceilDiv(a, b int) int { return (a + b - 1) / b }

// roundUp is the least multiple of b that is not below a.
func roundUp(a, b int) int { return ceilDiv(a, b) * b }

// freeList keeps objects for reuse. Unlike sync.Pool it never drops them, so
// that a steady state allocates nothing; it holds as many as were in use at once.
type freeList[T any] struct {
	lock sync.Mutex
	free []*T
}

func (l *freeList[T]) get() *T {
	l.lock.Lock()
	defer l.lock.Unlock()
	if n := len(l.free); n > 0 {
		x := l.free[n-1]
		l.free = l.free[:n-1]
		return x
	}
	return new(T)
}

func (l *freeList[T]) put(x *T) {
	l.lock.Lock()
	l.free = append(l.free, x)
	l.lock.Unlock()
}
