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
