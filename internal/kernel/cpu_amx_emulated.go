//go:build linux && amd64 && cgo && !purego && amxemulator

package kernel

import "github.com/graftml/graft/internal/kernel/amxemulator"

// emulateAMX: in this build, which is for tests, a processor without AMX runs its assembly too.
func emulateAMX() bool { return amxemulator.Install() == nil }
