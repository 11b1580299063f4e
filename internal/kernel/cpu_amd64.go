//go:build amd64 && !purego

package kernel

import "github.com/klauspost/cpuid/v2"

// detect reads CPUID and XGETBV: a level counts only if the operating system
// saves its registers.
func detect() implLevel {
	if !cpuid.CPU.Supports(cpuid.AVX2, cpuid.FMA3, cpuid.F16C) {
		return generic
	}
	if !cpuid.CPU.Supports(cpuid.AVX512F, cpuid.AVX512CD, cpuid.AVX512BW, cpuid.AVX512DQ, cpuid.AVX512VL) {
		return avx2
	}
	return avx512
}

// detectHalf lists the ways to compute products in bfloat16, the fastest first.
func detectHalf() []halfLevel {
	levels := []halfLevel{widened}
	if maxImpl < avx512 {
		return levels
	}
	if cpuid.CPU.Supports(cpuid.AVX512BF16) {
		if cpuid.CPU.IsVendor(cpuid.Intel) {
			levels = append(levels, pairs) // slower there than multiplying in float32
		} else {
			levels = []halfLevel{pairs, widened}
		}
	}
	if detectAMX() {
		levels = append([]halfLevel{tiles}, levels...)
	}
	return levels
}

// reported are the features that matter to speed here or in a later kernel.
var reported = []cpuid.FeatureID{
	cpuid.AVX2, cpuid.FMA3, cpuid.F16C, cpuid.AVX512F, cpuid.AVX512CD, cpuid.AVX512BW, cpuid.AVX512DQ,
	cpuid.AVX512VL, cpuid.AVX512BF16, cpuid.AVX512FP16, cpuid.AVX512VNNI, cpuid.AMXTILE, cpuid.AMXBF16, cpuid.AMXINT8,
}

// Features lists the vector extensions of this processor that the operating
// system lets programs use, whether or not a kernel uses them.
func Features() []string {
	var names []string
	for _, f := range reported {
		if cpuid.CPU.Supports(f) {
			names = append(names, f.String())
		}
	}
	return names
}
