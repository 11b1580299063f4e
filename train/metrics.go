package train

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/graftml/graft/internal/wholefile"
)

// This file writes metrics.jsonl.

const metricsFile = "metrics.jsonl"

// metrics is a line of metrics.jsonl. Absent figures are nil.
type metrics struct {
	Step            int      `json:"step"`
	Epoch           float64  `json:"epoch"`
	Loss            *float64 `json:"loss,omitempty"`
	LR              *float64 `json:"lr,omitempty"`
	GradNorm        *float64 `json:"grad_norm,omitempty"`
	Tokens          int      `json:"tokens,omitempty"`
	TargetTokens    int      `json:"target_tokens,omitempty"`
	TokensPerSecond *float64 `json:"tokens_per_second,omitempty"`
	rewards
	EvalLoss       *float64 `json:"eval_loss,omitempty"`
	EvalPerplexity *float64 `json:"eval_perplexity,omitempty"`
	evalRewards
}

// rewards are the figures of preferences.
type rewards struct {
	Chosen        *float64 `json:"rewards/chosen,omitempty"`
	Rejected      *float64 `json:"rewards/rejected,omitempty"`
	Accuracies    *float64 `json:"rewards/accuracies,omitempty"`
	Margins       *float64 `json:"rewards/margins,omitempty"`
	LogpsChosen   *float64 `json:"logps/chosen,omitempty"`
	LogpsRejected *float64 `json:"logps/rejected,omitempty"`
}

type evalRewards struct {
	EvalChosen     *float64 `json:"eval_rewards/chosen,omitempty"`
	EvalRejected   *float64 `json:"eval_rewards/rejected,omitempty"`
	EvalAccuracies *float64 `json:"eval_rewards/accuracies,omitempty"`
	EvalMargins    *float64 `json:"eval_rewards/margins,omitempty"`
}

func (f *figures) rewards() (r rewards) {
	if f.pairs == 0 {
		return r
	}
	n := float64(f.pairs)
	return rewards{finite(f.chosen / n), finite(f.rejected / n), finite(f.correct / n), finite((f.chosen - f.rejected) / n),
		finite(f.logpsChosen / n), finite(f.logpsRejected / n)}
}

// openMetrics opens the file of a run that has done so many steps. Lines of later steps, which a run
// that was killed has left, are taken out, and so is one that was not finished.
func openMetrics(dir string, fresh bool, step int) (*os.File, error) {
	path := filepath.Join(dir, metricsFile)
	var keep bytes.Buffer
	if !fresh {
		err := eachMetrics(dir, func(m *metrics, line []byte) {
			if m.Step <= step {
				keep.Write(line)
				keep.WriteByte('\n')
			}
		})
		if err != nil {
			return nil, err
		}
	}
	if err := wholefile.WriteFile(path, keep.Bytes()); err != nil {
		return nil, fmt.Errorf("train: writing metrics: %w", err)
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND, 0o666)
	if err != nil {
		return nil, fmt.Errorf("train: writing metrics: %w", err)
	}
	return f, nil
}

// maxMetricsLine is far above any line.
const maxMetricsLine = 1 << 16

// eachMetrics calls visit with every whole line of metrics.jsonl. No file is no line.
func eachMetrics(dir string, visit func(m *metrics, line []byte)) error {
	f, err := os.Open(filepath.Join(dir, metricsFile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("train: reading metrics: %w", err)
	}
	defer f.Close()
	b := bufio.NewReaderSize(f, maxMetricsLine)
	for {
		line, err := b.ReadSlice('\n')
		if err == io.EOF || err == bufio.ErrBufferFull {
			return nil // what follows was not finished
		}
		if err != nil {
			return fmt.Errorf("train: reading metrics: %w", err)
		}
		var m metrics
		if json.Unmarshal(line, &m) != nil {
			return nil
		}
		visit(&m, bytes.TrimSpace(line))
	}
}

// write appends a line, in one call.
func (r *run) write(m *metrics) error {
	line, err := json.Marshal(m)
	if err == nil {
		_, err = r.metrics.Write(append(line, '\n'))
	}
	if err != nil {
		return fmt.Errorf("train: writing metrics: %w", err)
	}
	return nil
}
