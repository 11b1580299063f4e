package main

import (
	"context"
	"fmt"
	"os"
	"runtime"
	"strings"

	"github.com/urfave/cli/v3"

	"github.com/graftml/graft/internal/kernel"
	"github.com/graftml/graft/onnx/ort"
)

func doctorCommand() *cli.Command {
	return &cli.Command{
		Name:  "doctor",
		Usage: "say what this machine offers: processor, kernels, memory, ONNX Runtime",
		Description: `  graft doctor
  graft doctor --json --ort-lib /opt/onnxruntime/lib/libonnxruntime.so`,
		Flags: []cli.Flag{jsonFlag(), ortFlag()},
		Action: func(_ context.Context, c *cli.Command) error {
			if _, err := arguments(c, 0, 0); err != nil {
				return err
			}
			d := diagnose(c.String("ort-lib"))
			if c.Bool("json") {
				return printJSON(d)
			}
			t := newTable()
			t.row("graft", d.Version+", "+d.Go)
			t.row("system", d.System)
			t.row("processor", strings.Join(d.Features, " "))
			t.row("kernels", fmt.Sprintf("%s (of %s)", d.Kernels, strings.Join(d.Available, ", ")))
			t.row("products in bf16", fmt.Sprintf("%s (of %s)", d.Half, strings.Join(d.Halves, ", ")))
			t.row("threads", d.Threads)
			if d.MemoryTotal > 0 {
				t.row("memory", fmt.Sprintf("%s, %s free", size(d.MemoryTotal), size(d.MemoryFree)))
			}
			if d.ORTError != "" {
				t.row("ONNX Runtime", d.ORTError)
			} else {
				t.row("ONNX Runtime", d.ORTVersion+", "+d.ORTLibrary)
			}
			t.flush()
			return nil
		},
	}
}

type diagnosis struct {
	Version     string   `json:"version"`
	Go          string   `json:"go"`
	System      string   `json:"system"`
	Features    []string `json:"cpu_features"`
	Kernels     string   `json:"kernels"`
	Available   []string `json:"kernels_available"`
	Half        string   `json:"bf16_products"`
	Halves      []string `json:"bf16_products_available"`
	Threads     int      `json:"threads"`
	MemoryTotal int64    `json:"memory_total,omitempty"`
	MemoryFree  int64    `json:"memory_available,omitempty"`
	ORTLibrary  string   `json:"onnxruntime_library,omitempty"`
	ORTVersion  string   `json:"onnxruntime_version,omitempty"`
	ORTError    string   `json:"onnxruntime_error,omitempty"`
}

func diagnose(lib string) diagnosis {
	d := diagnosis{Version: version, Go: runtime.Version(), System: runtime.GOOS + "/" + runtime.GOARCH, Features: kernel.Features(),
		Kernels: kernel.Impl(), Available: kernel.Impls(), Half: kernel.Half(), Halves: kernel.Halves(), Threads: kernel.Threads()}
	d.MemoryTotal, d.MemoryFree = memory()
	var err error
	if d.ORTVersion, d.ORTLibrary, err = ort.Version(lib); err != nil {
		d.ORTError = err.Error()
	}
	return d
}

// memory reads the machine's memory in bytes, zeros where the system does not say.
func memory() (total, free int64) {
	data, err := os.ReadFile("/proc/meminfo")
	if err != nil {
		return 0, 0
	}
	for line := range strings.Lines(string(data)) {
		var kib int64
		if n, _ := fmt.Sscanf(line, "MemTotal: %d kB", &kib); n == 1 {
			total = kib << 10
		}
		if n, _ := fmt.Sscanf(line, "MemAvailable: %d kB", &kib); n == 1 {
			free = kib << 10
		}
	}
	return total, free
}
