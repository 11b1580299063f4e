//go:build linux && amd64 && cgo && amxemulator

package amxemulator

import (
	"bytes"
	"encoding/binary"
	"math"
	"math/big"
	"math/rand/v2"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"unsafe"
)

// installed skips the test where there is nothing to emulate, and keeps it on its thread,
// whose tiles it uses.
func installed(t *testing.T) {
	t.Helper()
	if err := Install(); err != nil {
		t.Skip(err)
	}
	runtime.LockOSThread()
	t.Cleanup(runtime.UnlockOSThread)
}

const page = 4096

// memory is n bytes that no collection moves, up to a page that must not be touched, and
// their address.
func memory(t *testing.T, n int) ([]byte, uint64) {
	t.Helper()
	size := (n + page - 1) / page * page
	x, err := syscall.Mmap(-1, 0, size+page, syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_PRIVATE|syscall.MAP_ANON)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = syscall.Munmap(x) })
	if err := syscall.Mprotect(x[size:], syscall.PROT_NONE); err != nil {
		t.Fatal(err)
	}
	x = x[size-n : size]
	return x, uint64(uintptr(unsafe.Pointer(&x[0])))
}

// shape is the rows and bytes to a row of a tile.
type shape struct{ rows, colsb int }

func config(shapes [8]shape) []byte {
	c := make([]byte, 64)
	c[0] = 1
	for t, s := range shapes {
		binary.LittleEndian.PutUint16(c[16+2*t:], uint16(s.colsb))
		c[48+t] = byte(s.rows)
	}
	return c
}

func random(r *rand.Rand, x []byte) {
	for i := range x {
		x[i] = byte(r.Uint32())
	}
}

// run is call, and checks that nothing but memory and tiles changed.
func run(t *testing.T, c code, r registers) {
	t.Helper()
	after := r
	call(c, &after)
	if after != r {
		t.Fatalf("registers %x became %x", r, after)
	}
}

func TestConfig(t *testing.T) {
	installed(t)
	x, at := memory(t, 64)
	y, to := memory(t, 64)
	want := config([8]shape{{1, 4}, {16, 64}, {}, {3, 61}, {5, 8}, {16, 4}, {7, 36}, {}})
	want[1] = 2 // the row that a load goes on at
	for i, c := range []struct {
		config, show code
		r            registers
	}{
		{configAX.code(), showR12.code(), registers{rax: at, r12: to}},
		{configSIB.code(), showR12.code(), registers{r13: at - 0x40 - 4*24, r14: 24, r12: to}},
		{configAX.code(), showSIB.code(), registers{rax: at, rbp: to + 0x12345 - 8*99, rcx: 99}},
	} {
		copy(x, want)
		run(t, c.config, c.r)
		clear(y)
		run(t, c.show, c.r)
		if !bytes.Equal(y, want) {
			t.Errorf("%d: configured % x, shown % x", i, want, y)
		}
	}
	run(t, configRIP.code(), registers{})
	run(t, showR12.code(), registers{r12: to})
	full := [8]shape{}
	for i := range full {
		full[i] = shape{16, 64}
	}
	if !bytes.Equal(y, config(full)) {
		t.Errorf("relative to RIP: shown % x", y)
	}
	for name, drop := range map[string]func(){
		"TILERELEASE": func() { run(t, release.code(), registers{}) },
		"palette 0":   func() { clear(x); x[20] = 9; run(t, configAX.code(), registers{rax: at}) },
	} {
		run(t, configRIP.code(), registers{})
		drop()
		run(t, showR12.code(), registers{r12: to})
		if !bytes.Equal(y, make([]byte, 64)) {
			t.Errorf("after %s: shown % x", name, y)
		}
	}
}

// TestMoves loads a tile by every form of address and stores it.
func TestMoves(t *testing.T) {
	installed(t)
	r := rand.New(rand.NewPCG(1, 2))
	const lead = 1000
	src, from := memory(t, lead+16*200)
	dst, to := memory(t, 16*100)
	conf, configAt := memory(t, 64)
	// move configures tile 6, loads it by c from its first row at src[lead:] on, and compares what
	// comes out with rows at that stride, from row start on.
	move := func(name string, c code, regs registers, s shape, stride int, start byte) {
		t.Helper()
		copy(conf, config([8]shape{6: s}))
		conf[1] = start
		run(t, configAX.code(), registers{rax: configAt})
		run(t, c, regs)
		random(r, dst)
		want := bytes.Clone(dst)
		for row := range s.rows {
			line := want[row*99:][:s.colsb]
			if clear(line); row >= int(start) {
				copy(line, src[lead+row*stride:])
			}
		}
		run(t, store6.code(), registers{rdx: to, rbx: 99})
		if !bytes.Equal(dst, want) {
			t.Fatalf("%s: tile of %d rows of %d bytes differs", name, s.rows, s.colsb)
		}
	}
	random(r, src)
	at := from + lead
	number := func(i int) int { // of the register, which RSP is not among
		if i >= rsp {
			i++
		}
		return i
	}
	for base := range 15 {
		for index := range 15 {
			for i, d := range displacements {
				stride, s := 1+r.IntN(200), shape{1 + r.IntN(16), 1 + r.IntN(64)}
				if s.rows == 16 && stride > 196-64 {
					stride = 64
				}
				regs := registers{}
				regs[number(index)] = uint64(stride)
				regs[number(base)] = at - uint64(d)
				if base == index {
					s.rows = 1
				}
				move("TILELOADD", loadCode(base, index, i), regs, s, stride, 0)
			}
		}
	}
	for _, s := range []shape{{16, 64}, {1, 64}, {16, 1}, {3, 12}} {
		move("TILELOADDT1", loadT1.code(), registers{rdx: at, rbx: 64}, s, 64, 0)
		move("without index", loadNoIndex.code(), registers{rdx: at, rbx: 64}, s, 0, 0)
		move("index twice", loadTwice.code(), registers{rdx: at, rbx: 33}, s, 66, 0)
		move("index eight times", loadEight.code(), registers{rdx: at, rbx: 9}, s, 72, 0)
		move("an interrupted load", loadT1.code(), registers{rdx: at, rbx: 64}, s, 64, 2)
	}
	move("stride downwards", loadT1.code(), registers{rdx: at, rbx: ^uint64(0) - 49}, shape{16, 64}, -50, 0)
	// MAP_FIXED_NOREPLACE, where nothing lies as a rule.
	_, _, errno := syscall.Syscall6(syscall.SYS_MMAP, fixedAddress&^(page-1), page, syscall.PROT_READ|syscall.PROT_WRITE,
		syscall.MAP_PRIVATE|syscall.MAP_ANON|0x100000, ^uintptr(0), 0)
	if errno == 0 {
		run(t, configRIP.code(), registers{})
		run(t, loadT1.code(), registers{rdx: at, rbx: 64})
		run(t, store6.code(), registers{rdx: fixedAddress, rbx: 64})
		move("without base", loadNoBase.code(), registers{rbx: 64}, shape{16, 64}, 64, 0)
		if _, _, errno = syscall.Syscall(syscall.SYS_MUNMAP, fixedAddress&^(page-1), page, 0); errno != 0 {
			t.Error(errno)
		}
	}
	run(t, zero6.code(), registers{})
	run(t, store6.code(), registers{rdx: to, rbx: 64})
	if !bytes.Equal(dst[:1024], make([]byte, 1024)) {
		t.Error("TILEZERO leaves something")
	}
}

// fma is a·b + c rounded once, with what is too small for a normal number taken for zero on
// the way in and out.
func fma(a, b, c float32) float32 {
	a, b, c = flushed(a), flushed(b), flushed(c)
	exact := float64(a)*float64(b) + float64(c)
	if math.IsNaN(exact) || math.IsInf(float64(a), 0) || math.IsInf(float64(b), 0) || math.IsInf(float64(c), 0) {
		return float32(exact)
	}
	big32 := func(x float32) *big.Float { return new(big.Float).SetPrec(1000).SetFloat64(float64(x)) }
	sum := big32(a)
	sum.Mul(sum, big32(b)).Add(sum, big32(c))
	if sum.Sign() == 0 {
		return float32(exact) // its sign
	}
	if sum.SetPrec(24); sum.MantExp(nil) < -125 { // below 2^-126 = 0.5·2^-125
		return float32(math.Copysign(0, float64(sum.Sign())))
	}
	x, _ := sum.Float32()
	return x
}

func flushed(x float32) float32 {
	if bits := math.Float32bits(x); bits&0x7f800000 == 0 {
		return math.Float32frombits(bits & 0x80000000)
	}
	return x
}

// product is TDPBF16PS of rows of 64 bytes: c (m, n) += a (m, 2k)·b (k, n, 2).
func product(c, a, b []byte, m, n, k int) {
	half := func(x []byte, row, i int) float32 {
		return math.Float32frombits(uint32(binary.LittleEndian.Uint16(x[64*row+2*i:])) << 16)
	}
	for i := range m {
		for j := range n {
			var even, odd float32
			for l := range k {
				even = fma(half(a, i, 2*l), half(b, l, 2*j), even)
				odd = fma(half(a, i, 2*l+1), half(b, l, 2*j+1), odd)
			}
			at := c[64*i+4*j:]
			sum := fma(1, odd, even)
			sum = fma(1, sum, math.Float32frombits(binary.LittleEndian.Uint32(at)))
			binary.LittleEndian.PutUint32(at, math.Float32bits(sum))
		}
	}
}

// halves fills x with values in bfloat16 of about so many binary orders, or with any bits.
func halves(r *rand.Rand, x []byte, orders int, anything bool) {
	for i := 0; i < len(x); i += 2 {
		v := float32(math.Ldexp(r.NormFloat64(), r.IntN(2*orders+1)-orders))
		bits := uint16(math.Float32bits(v) >> 16)
		if anything {
			bits = uint16(r.Uint32())
		}
		binary.LittleEndian.PutUint16(x[i:], bits)
	}
}

// TestDot compares every choice of three tiles, in many shapes, with plain Go, on values of
// like and of very different sizes, on denormal ones, and on any bits.
func TestDot(t *testing.T) {
	installed(t)
	r := rand.New(rand.NewPCG(3, 4))
	conf, configAt := memory(t, 64)
	x, at := memory(t, 3*1024)
	for dst := range 8 {
		for a := range 8 {
			for b := range 8 {
				if dst == a || dst == b || a == b {
					continue
				}
				m, n, k := 1+r.IntN(16), 1+r.IntN(16), 1+r.IntN(16)
				if r.IntN(4) == 0 {
					m, n, k = 16, 16, 16
				}
				orders, anything := []int{0, 10, 50, 70, 126}[r.IntN(5)], r.IntN(5) == 0
				halves(r, x[:2048], orders, anything)
				for i := 2048; i < 3072; i += 4 {
					bits := r.Uint32()
					if !anything {
						bits = math.Float32bits(float32(math.Ldexp(r.NormFloat64(), r.IntN(2*orders+1)-orders)))
					}
					binary.LittleEndian.PutUint32(x[i:], bits)
				}
				var shapes [8]shape
				shapes[a], shapes[b], shapes[dst] = shape{m, 4 * k}, shape{k, 4 * n}, shape{m, 4 * n}
				copy(conf, config(shapes))
				run(t, configAX.code(), registers{rax: configAt})
				loadTile(t, a, at)
				loadTile(t, b, at+1024)
				loadTile(t, dst, at+2048)
				run(t, dotCode(dst, a, b), registers{})
				want := bytes.Clone(x)
				product(want[2048:], want, want[1024:], m, n, k)
				storeTile(t, dst, at+2048)
				for i := 2048; i < 3072; i += 4 {
					g, w := math.Float32frombits(binary.LittleEndian.Uint32(x[i:])), math.Float32frombits(binary.LittleEndian.Uint32(want[i:]))
					if math.Float32bits(g) != math.Float32bits(w) && !(g != g && w != w) {
						t.Fatalf("tiles %d += %d·%d, (%d, %d, %d), %d orders, any bits %v: value %d is %v, not %v",
							dst, a, b, m, n, k, orders, anything, i/4-512, g, w)
					}
				}
				storeTile(t, a, at+2048)
				for i := range m {
					if !bytes.Equal(x[2048+64*i:][:4*k], want[64*i:][:4*k]) {
						t.Fatalf("source %d changed", a)
					}
				}
			}
		}
	}
}

// loadTile and storeTile move tile n at a stride of 64 bytes.
func loadTile(t *testing.T, n int, at uint64) {
	t.Helper()
	run(t, tileCode(n, false), registers{rax: at, rcx: 64})
}

func storeTile(t *testing.T, n int, at uint64) {
	t.Helper()
	run(t, tileCode(n, true), registers{rax: at, rcx: 64})
}

// TestThreads: each thread has tiles of its own.
func TestThreads(t *testing.T) {
	installed(t)
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(4))
	var wg sync.WaitGroup
	for n := range 8 {
		x, at := memory(t, 1024)
		y, to := memory(t, 1024)
		random(rand.New(rand.NewPCG(5, uint64(n))), x)
		wg.Go(func() {
			runtime.LockOSThread()
			defer runtime.UnlockOSThread()
			run(t, configRIP.code(), registers{})
			for tile := range 8 {
				loadTile(t, tile, at)
			}
			for i := range 100 {
				runtime.Gosched()
				clear(y)
				storeTile(t, i%8, to)
				if !bytes.Equal(x, y) {
					t.Errorf("thread %d has lost tile %d", n, i%8)
					return
				}
			}
		})
	}
	wg.Wait()
}

func TestCounts(t *testing.T) {
	installed(t)
	_, at := memory(t, 1024)
	before := Counts()
	run(t, configRIP.code(), registers{})
	for range 3 {
		loadTile(t, 1, at)
	}
	run(t, loadT1.code(), registers{rdx: at, rbx: 64})
	run(t, zero6.code(), registers{})
	run(t, dotCode(0, 1, 6), registers{})
	run(t, dotCode(0, 1, 2), registers{})
	storeTile(t, 0, at)
	run(t, release.code(), registers{})
	if got, want := Counts().Sub(before), (Count{Config: 1, Release: 1, Zero: 1, Load: 4, Store: 1, Dot: 2}); got != want {
		t.Errorf("counted %+v, want %+v", got, want)
	}
}

// TestRefused: what the processor refuses ends the process with Go's report of SIGILL, and so
// does what is not AMX.
func TestRefused(t *testing.T) {
	installed(t)
	full := shape{16, 64}
	x, at := memory(t, 1024)
	configure := func(shapes [8]shape, change func(c []byte)) {
		copy(x, config(shapes))
		change(x)
		run(t, configAX.code(), registers{rax: at})
	}
	same := func([]byte) {}
	cases := map[string]struct {
		says string
		run  func()
	}{
		"UD2":                {"", func() { run(t, undefined.code(), registers{}) }},
		"products of bytes":  {"", func() { run(t, configRIP.code(), registers{}); run(t, dotInt8.code(), registers{}) }},
		"load without tiles": {"TILELOADD: the tile is not configured", func() { loadTile(t, 1, at) }},
		"store after release": {"TILESTORED: the tile is not configured", func() {
			run(t, configRIP.code(), registers{})
			run(t, release.code(), registers{})
			storeTile(t, 1, at)
		}},
		"zero of no tile":       {"TILEZERO: the tile is not configured", func() { configure([8]shape{full}, same); run(t, zero6.code(), registers{}) }},
		"product without tiles": {"TDPBF16PS: no tiles", func() { run(t, dotCode(0, 1, 2), registers{}) }},
		"product of no tile":    {"TDPBF16PS: a tile is not configured", func() { configure([8]shape{full, full}, same); run(t, dotCode(0, 1, 2), registers{}) }},
		"a tile twice":          {"TDPBF16PS: a tile is used twice", func() { run(t, configRIP.code(), registers{}); run(t, dotCode(0, 1, 1), registers{}) }},
		"rows differ":           {"shapes do not fit", func() { configure([8]shape{full, {15, 64}, full}, same); run(t, dotCode(0, 1, 2), registers{}) }},
		"columns differ":        {"shapes do not fit", func() { configure([8]shape{full, full, {16, 60}}, same); run(t, dotCode(0, 1, 2), registers{}) }},
		"terms differ":          {"shapes do not fit", func() { configure([8]shape{full, full, {15, 64}}, same); run(t, dotCode(0, 1, 2), registers{}) }},
		"part of a value":       {"multiple of 4", func() { configure([8]shape{full, {16, 62}, full}, same); run(t, dotCode(0, 1, 2), registers{}) }},
		"17 rows":               {"LDTILECFG: a tile has more", func() { configure([8]shape{{17, 64}}, same) }},
		"65 bytes":              {"LDTILECFG: a tile has more", func() { configure([8]shape{{16, 65}}, same) }},
		"rows without columns":  {"LDTILECFG: a tile has rows", func() { configure([8]shape{{16, 0}}, same) }},
		"palette 2":             {"LDTILECFG: there are", func() { configure([8]shape{full}, func(c []byte) { c[0] = 2 }) }},
		"a reserved byte":       {"LDTILECFG: a reserved", func() { configure([8]shape{full}, func(c []byte) { c[15] = 1 }) }},
		"the shape of a ninth":  {"LDTILECFG: a reserved", func() { configure([8]shape{full}, func(c []byte) { c[32] = 64 }) }},
		"the rows of a ninth":   {"LDTILECFG: a reserved", func() { configure([8]shape{full}, func(c []byte) { c[56] = 16 }) }},
		"an ordinary VEX prefix": {"runs", func() {
			run(t, vector.code(), registers{})
			_, _ = os.Stderr.WriteString("runs\n")
			run(t, undefined.code(), registers{})
		}},
	}
	const variable = "AMXEMULATOR_TEST_REFUSED"
	if name := os.Getenv(variable); name != "" {
		cases[name].run()
		return
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			cmd := exec.Command(os.Args[0], "-test.run", "^TestRefused$")
			cmd.Env = append(os.Environ(), variable+"="+name)
			output, err := cmd.CombinedOutput()
			if err == nil || !strings.Contains(string(output), "SIGILL: illegal instruction") || !strings.Contains(string(output), c.says) {
				t.Fatalf("ended with %v; want SIGILL and %q:\n%.2000s", err, c.says, output)
			}
			if c.says == "" && strings.Contains(string(output), "amxemulator: ") {
				t.Fatalf("the emulator has a word to say:\n%.2000s", output)
			}
		})
	}
}
