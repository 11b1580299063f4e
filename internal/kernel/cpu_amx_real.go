//go:build linux && amd64 && !purego && !(cgo && amxemulator)

package kernel

// emulateAMX: this build does not.
func emulateAMX() bool { return false }
