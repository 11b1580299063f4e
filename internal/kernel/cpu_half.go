package kernel

import (
	"fmt"
	"os"
	"slices"
	"strings"
)

// This file chooses how products in bfloat16 (Matrix.Half) are computed.

// halfLevel is a way of computing them; each needs the implementation avx512 but the
// first.
type halfLevel int

const (
	widened halfLevel = iota // float32 kernels on rounded values, everywhere
	pairs                    // VDPBF16PS of AVX512-BF16
	tiles                    // TDPBF16PS of AMX
)

var halfNames = [...]string{widened: "float32", pairs: "avx512-bf16", tiles: "amx"}

// halfLevels are those of this build on this processor, the default first.
var halfLevels = detectHalf()

// half is the level in use where impl is avx512. GRAFT_KERNEL, set to anything but
// avx512-bf16 and amx, leaves it at widened.
var half = initialHalf(os.Getenv("GRAFT_KERNEL"))

func initialHalf(env string) halfLevel {
	if env == "" {
		return halfLevels[0]
	}
	for _, l := range halfLevels {
		if env == halfNames[l] {
			return l
		}
	}
	return widened
}

// halfNow is the level in use.
func halfNow() halfLevel {
	if impl != avx512 {
		return widened
	}
	return half
}

// hasBF16 reports whether the processor converts to bfloat16, AVX512-BF16.
var hasBF16 = slices.Contains(halfLevels, pairs)

// nativeBF16 reports whether conversions to bfloat16 are the processor's own now. A test that runs
// the drivers of such processors on their references leaves it out.
func nativeBF16() bool { return hasBF16 && impl == avx512 && !pairsInGo && !tilesInGo }

// Half is how products in bfloat16 are computed now: "amx", "avx512-bf16", or
// "float32", on rounded values. It is the best that this build, the processor and the
// operating system offer, unless GRAFT_KERNEL, SetImpl or SetHalf chose another.
func Half() string { return halfNames[halfNow()] }

// Halves lists the ways that this build can compute products in bfloat16 on this
// processor, the fastest first.
func Halves() []string {
	var names []string
	for _, l := range halfLevels {
		names = append(names, halfNames[l])
	}
	return names
}

// SetHalf makes products in bfloat16 be computed in the named way, where the
// implementation in use is avx512, until restore is called. It must not run while a
// kernel runs. The error names the choices.
func SetHalf(name string) (restore func(), err error) {
	for _, l := range halfLevels {
		if name == halfNames[l] {
			previous := half
			half = l
			return func() { half = previous }, nil
		}
	}
	return nil, fmt.Errorf("kernel: choosing products in bfloat16 %q: this build on this processor has %s", name, strings.Join(Halves(), ", "))
}
