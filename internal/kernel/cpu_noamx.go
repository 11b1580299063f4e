//go:build !linux || !amd64 || purego

package kernel

// detectAMX: this build has no AMX, or the system no known way to ask for it.
func detectAMX() bool { return false }
