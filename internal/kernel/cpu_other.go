//go:build !amd64 || purego

package kernel

// detect: this build has plain Go only.
func detect() implLevel { return generic }

// Features lists the vector extensions that this build can use: none.
func Features() []string { return nil }

func detectHalf() []halfLevel { return []halfLevel{widened} }
