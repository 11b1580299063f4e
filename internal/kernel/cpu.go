package kernel

import (
	"fmt"
	"os"
	"strings"
)

// This file chooses the implementation. It holds no instruction tests of its
// own: detect (cpu_amd64.go, cpu_other.go) says what the processor offers.

// implLevel orders the implementations of the package: a processor that can
// run one level can run all below it.
type implLevel int

const (
	generic implLevel = iota // plain Go, everywhere
	avx2                     // AVX2, FMA and F16C
	avx512                   // AVX-512 F, CD, BW, DQ and VL
)

var levelNames = [...]string{generic: "generic", avx2: "avx2", avx512: "avx512"}

func (l implLevel) String() string { return levelNames[l] }

// maxImpl is the highest level this build can run on this processor.
var maxImpl = detect()

// impl is the level in use. Every dispatch of the package reads it; it changes
// only through SetImpl, never while a kernel runs.
var impl = initialImpl(os.Getenv("GRAFT_KERNEL"))

// initialImpl is the level that env names if this processor can run it, and
// the highest otherwise. A wrong value is not reported here, since a library
// does not print: a command passes it to SetImpl and shows the error.
func initialImpl(env string) implLevel {
	if l, err := parseImpl(env); err == nil {
		return l
	}
	return maxImpl
}

func parseImpl(name string) (implLevel, error) {
	for l := generic; l <= maxImpl; l++ {
		if name == l.String() {
			return l, nil
		}
	}
	return 0, fmt.Errorf("kernel: choosing implementation %q: this build on this processor has %s", name, strings.Join(Impls(), ", "))
}

// Impl is the name of the implementation in use: "avx512", "avx2" or
// "generic". It is the best the processor offers unless the environment
// variable GRAFT_KERNEL named a lower one at start, or SetImpl did later.
func Impl() string { return impl.String() }

// Impls lists the implementations this build can run on this processor, the
// best first. The last is always "generic".
func Impls() []string {
	var names []string
	for l := maxImpl; l >= generic; l-- {
		names = append(names, l.String())
	}
	return names
}

// SetImpl makes the package use the named implementation until restore is
// called. It must not run while a kernel runs. The error names the choices
// when this processor cannot run the named one.
func SetImpl(name string) (restore func(), err error) {
	l, err := parseImpl(name)
	if err != nil {
		return nil, err
	}
	previous := impl
	impl = l
	return func() { impl = previous }, nil
}
