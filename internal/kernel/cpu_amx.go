//go:build linux && amd64 && !purego

package kernel

import (
	"syscall"
	"unsafe"

	"github.com/klauspost/cpuid/v2"
)

// detectAMX asks Linux for the tile registers. A process has them only after it
// asked once: until then the first tile instruction ends it with SIGILL, though
// CPUID shows the feature and LDTILECFG succeeds. The kernel's answer counts, and
// the second question whether it holds.
func detectAMX() bool {
	if !cpuid.CPU.Supports(cpuid.AVX512BF16) {
		return false
	}
	if !cpuid.CPU.Supports(cpuid.AMXTILE, cpuid.AMXBF16) {
		return emulateAMX()
	}
	const (
		getPermission = 0x1022 // ARCH_GET_XCOMP_PERM
		askPermission = 0x1023 // ARCH_REQ_XCOMP_PERM
		tileData      = 18     // the component of the extended state
	)
	if _, _, errno := syscall.RawSyscall(syscall.SYS_ARCH_PRCTL, askPermission, tileData, 0); errno != 0 {
		return false
	}
	return permitted(getPermission)&(1<<tileData) != 0
}

// permitted returns the set of components that the process may use, or none.
func permitted(get uintptr) (components uint64) {
	if _, _, errno := syscall.RawSyscall(syscall.SYS_ARCH_PRCTL, get, uintptr(unsafe.Pointer(&components)), 0); errno != 0 {
		return 0
	}
	return components
}
