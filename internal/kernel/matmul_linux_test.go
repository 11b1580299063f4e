package kernel

import (
	"os"
	"syscall"
	"testing"
	"unsafe"
)

// fenced gives n values that end (or, if front, begin) at a page that must not
// be touched, so that an assembly routine that strays ends the test.
func fenced(t *testing.T, n int, front bool) []float32 {
	t.Helper()
	page := os.Getpagesize()
	size := roundUp(4*n+1, page)
	mem, err := syscall.Mmap(-1, 0, size+2*page, syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_ANON|syscall.MAP_PRIVATE)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = syscall.Munmap(mem) })
	for _, fence := range [][]byte{mem[:page], mem[page+size:]} {
		if err := syscall.Mprotect(fence, syscall.PROT_NONE); err != nil {
			t.Fatal(err)
		}
	}
	start := page + size - 4*n
	if front {
		start = page
	}
	return unsafe.Slice((*float32)(unsafe.Pointer(&mem[start])), n)
}

func TestProductsStayInside(t *testing.T) {
	forEachImpl(t, func(t *testing.T) {
		for _, s := range productShapes {
			m, n, k := s[0], s[1], s[2]
			if m*n*k == 0 || m*n*k > 1e6 {
				continue
			}
			for _, front := range []bool{false, true} {
				w, x, y := fenced(t, n*k, front), fenced(t, m*k, front), fenced(t, m*n, front)
				weight := &Matrix{N: n, K: k, F32: w}
				copy(w, normal(seeded(1), n*k))
				MulT(y, n, x, k, m, weight, false)
				Mul(x, k, y, n, m, weight, true)
				MulTN(w, k, y, n, x, k, m, n, k, 1, true)
			}
		}
	})
}

func TestHalfProductsStayInside(t *testing.T) {
	forEachHalf(t, func(t *testing.T) {
		for at, s := range productShapes {
			m, n, k := s[0], s[1], s[2]
			if m*n*k == 0 || m*n*k > 1e6 {
				continue
			}
			for _, front := range []bool{false, true} {
				w, x, y, half := fenced(t, n*k, front), fenced(t, m*k, front), fenced(t, m*n, front), fenced(t, (n*k+1)/2, front)
				weight := &Matrix{N: n, K: k, F32: w, Half: true}
				if at%2 == 0 {
					weight.F32, weight.BF16 = nil, asBytes(half)
				}
				MulT(y, n, x, k, m, weight, false)
				Mul(x, k, y, n, m, weight, true)
			}
		}
	})
}
