package kernel

import (
	"bytes"
	"os"
	"slices"
	"strings"
	"testing"
)

// forEachImpl runs test as a subtest under every implementation that this
// processor can run.
func forEachImpl(t *testing.T, test func(t *testing.T)) {
	t.Helper()
	for _, name := range Impls() {
		t.Run(name, func(t *testing.T) {
			restore, err := SetImpl(name)
			if err != nil {
				t.Fatal(err)
			}
			defer restore()
			test(t)
		})
	}
}

func TestSetImpl(t *testing.T) {
	names := Impls()
	if names[len(names)-1] != "generic" || !slices.Contains(names, Impl()) {
		t.Fatalf("Impls() = %q, Impl() = %q", names, Impl())
	}
	before := Impl()
	restore, err := SetImpl("generic")
	if err != nil || Impl() != "generic" {
		t.Fatalf("SetImpl(generic): %v, now %q", err, Impl())
	}
	if restore(); Impl() != before {
		t.Fatalf("restored to %q, want %q", Impl(), before)
	}
	_, err = SetImpl("altivec")
	if err == nil || !strings.Contains(err.Error(), "generic") || Impl() != before {
		t.Fatalf("SetImpl(altivec): %v, now %q", err, Impl())
	}
	if initialImpl("generic") != generic || initialImpl("altivec") != maxImpl || initialImpl("") != maxImpl {
		t.Fatal("the environment variable is misread")
	}
}

// compareFile fails unless the file holds want.
func compareFile(t *testing.T, name string, want []byte) {
	t.Helper()
	got, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("%s is not what its emitter writes; run go generate ./internal/kernel", name)
	}
}
