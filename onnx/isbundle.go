package onnx

import (
	"os"
	"path/filepath"
)

// IsBundle reports whether a folder holds a bundle's manifest.
func IsBundle(dir string) bool {
	info, err := os.Stat(filepath.Join(dir, manifestFile))
	return err == nil && info.Mode().IsRegular()
}
