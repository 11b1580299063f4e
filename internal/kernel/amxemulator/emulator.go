//go:build linux && amd64 && cgo && amxemulator

package amxemulator

/*
#include "emulator.h"
*/
import "C"

import (
	"errors"
	"fmt"
	"sync"
)

// Install makes this process carry out AMX instructions, from now on and in all threads. It
// fails where the processor has them, and where it lacks AVX-512, which computes the sums.
func Install() error { return install() }

var install = sync.OnceValue(func() error {
	switch status, err := C.amx_install(); status {
	case C.AMX_INSTALLED:
		return nil
	case C.AMX_PRESENT:
		return errors.New("amxemulator: this processor has AMX")
	case C.AMX_NO_VECTORS:
		return errors.New("amxemulator: this processor has no AVX-512")
	default:
		return fmt.Errorf("amxemulator: setting the handler of SIGILL: %w", err)
	}
})

// Count is how many instructions of each kind were carried out.
type Count struct {
	Config, Release, Zero, Load, Store, Dot uint64
}

// Counts is what all threads carried out since the start. Config counts LDTILECFG, Load both
// forms.
func Counts() Count {
	n := func(kind uint32) uint64 { return uint64(C.amx_count(C.enum_amx_kind(kind))) }
	return Count{
		Config: n(C.AMX_CONFIG), Release: n(C.AMX_RELEASE), Zero: n(C.AMX_ZERO),
		Load: n(C.AMX_LOAD), Store: n(C.AMX_STORE), Dot: n(C.AMX_DOT),
	}
}

// Sub is what came after old.
func (c Count) Sub(old Count) Count {
	return Count{
		Config: c.Config - old.Config, Release: c.Release - old.Release, Zero: c.Zero - old.Zero,
		Load: c.Load - old.Load, Store: c.Store - old.Store, Dot: c.Dot - old.Dot,
	}
}
