package main

import (
	"context"
	"fmt"

	"github.com/urfave/cli/v3"

	"github.com/graftml/graft/internal/hub"
)

func pullCommand() *cli.Command {
	return &cli.Command{
		Name:      "pull",
		Usage:     "download a repository from a Hugging Face hub",
		ArgsUsage: "OWNER/NAME",
		Description: `Prints the folder that the files are in, which is then a model for the other commands: a snapshot
in the cache that Hugging Face's tools share, or with -o a folder of plain files. What is there
already is not downloaded again; every file is checked against the hash in the hub's listing. A
download that breaks off leaves a part file, and the same command goes on from there.

Patterns are those of Hugging Face's tools: * also matches slashes.

The environment says the rest: HF_ENDPOINT another hub, HF_TOKEN a token for private and gated
repositories (else the one that "hf auth login" left), HF_HUB_CACHE or HF_HOME where the cache is, and
HF_HUB_OFFLINE=1 that the cache alone is to answer.

  graft pull HuggingFaceTB/SmolLM2-135M-Instruct
  graft pull Qwen/Qwen3-0.6B -o qwen3 --include "*.safetensors" --include "*.json"
  graft pull bartowski/SmolLM2-135M-Instruct-GGUF --include "*Q8_0.gguf" --revision main
  graft inspect $(graft pull HuggingFaceTB/SmolLM2-135M-Instruct)`,
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "out", Aliases: []string{"o"}, Usage: "put plain files into this `FOLDER` instead of the cache"},
			&cli.StringFlag{Name: "revision", Usage: "a branch, a tag or a `COMMIT`", Value: "main"},
			&cli.StringSliceFlag{Name: "include", Usage: "only files that match this `PATTERN`; repeatable"},
			&cli.StringSliceFlag{Name: "exclude", Usage: "no files that match this `PATTERN`; repeatable"},
			&cli.BoolFlag{Name: "force", Usage: "replace files in the folder of -o that have other content"},
			&cli.BoolFlag{Name: "dry-run", Usage: "list the files and their sizes, download nothing"},
			jsonFlag(),
		},
		Action: pull,
	}
}

// pulled is the JSON form of a pull.
type pulled struct {
	Path       string       `json:"path,omitempty"`
	Commit     string       `json:"commit"`
	Bytes      int64        `json:"bytes"`
	Downloaded int64        `json:"downloaded"`
	Files      []pulledFile `json:"files"`
}

type pulledFile struct {
	Path string `json:"path"`
	Size int64  `json:"size"`
	Hash string `json:"hash"` // SHA-256, or the SHA-1 of a git blob
}

func pull(ctx context.Context, c *cli.Command) error {
	args, err := arguments(c, 1, 1)
	if err != nil {
		return err
	}
	client, err := hub.FromEnvironment()
	if err != nil {
		return err
	}
	client.Notice = func(message string) { say("%s", message) }
	bar := newProgress("pulling " + args[0])
	bar.bytes = true
	p := hub.Pull{Repo: args[0], Revision: c.String("revision"), Include: c.StringSlice("include"), Exclude: c.StringSlice("exclude"),
		Out: c.String("out"), Force: c.Bool("force"), Progress: bar.update}
	do := client.Pull
	if c.Bool("dry-run") {
		do = client.List
	}
	got, err := do(ctx, p)
	bar.finish()
	if err != nil {
		return err
	}
	switch {
	case c.Bool("json"):
		out := pulled{Path: got.Path, Commit: got.Commit, Bytes: got.Bytes, Downloaded: got.Downloaded}
		for _, f := range got.Files {
			out.Files = append(out.Files, pulledFile{f.Path, f.Size, f.Hash})
		}
		return printJSON(out)
	case c.Bool("dry-run"):
		t := newTable()
		for _, f := range got.Files {
			t.row(printable(f.Path), size(f.Size))
		}
		t.flush()
		say("%d files, %s, commit %s", len(got.Files), size(got.Bytes), got.Commit)
		return nil
	}
	say("%d files, %s, of which %s downloaded; commit %s", len(got.Files), size(got.Bytes), size(got.Downloaded), got.Commit)
	_, err = fmt.Fprintln(stdout, got.Path)
	return err
}
