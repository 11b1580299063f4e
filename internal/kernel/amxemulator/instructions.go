//go:build linux && amd64 && cgo && amxemulator

package amxemulator

/*
#include "instructions.h"
*/
import "C"

import "unsafe"

// What the tests run; a test file cannot reach C itself.

// registers are RAX, RCX, RDX, RBX, RSP, RBP, RSI, RDI, R8 to R15: the processor's order.
// RSP stays as it is.
type registers [16]uint64

const (
	rax = iota
	rcx
	rdx
	rbx
	rsp
	rbp
	r12 = 12
	r13 = 13
	r14 = 14
)

// code is a function without arguments.
type code unsafe.Pointer

// form is the place of an instruction among the forms of instructions.S.
type form int

const (
	configAX form = iota
	configSIB
	showR12
	showSIB
	release
	store6
	loadT1
	loadNoIndex
	loadTwice
	loadEight
	loadNoBase // at fixedAddress
	zero6
	undefined
	configRIP
	vector
	dotInt8
)

const fixedAddress = 0x20001040

const slot = 16 // bytes from one instruction to the next

func (f form) code() code { return code(unsafe.Add(unsafe.Pointer(&C.amx_forms), slot*int(f))) }

// loadCode is TILELOADD of tile 6 at a base, index and displacement, the registers counted
// without RSP.
func loadCode(base, index, displacement int) code {
	return code(unsafe.Add(unsafe.Pointer(&C.amx_loads), slot*((base*15+index)*len(displacements)+displacement)))
}

var displacements = [...]int64{0, 0x40, -0x80, -0x54321}

// tileCode loads a tile from RAX at the stride RCX, or stores it.
func tileCode(tile int, store bool) code {
	if store {
		tile += 8
	}
	return code(unsafe.Add(unsafe.Pointer(&C.amx_moves), slot*tile))
}

// dotCode is TDPBF16PS.
func dotCode(dst, a, b int) code {
	return code(unsafe.Add(unsafe.Pointer(&C.amx_dots), slot*((dst*8+a)*8+b)))
}

func call(c code, r *registers) {
	C.amx_call(unsafe.Pointer(c), (*C.uint64_t)(unsafe.Pointer(r)))
}
