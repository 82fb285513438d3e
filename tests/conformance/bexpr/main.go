// Command bexpr writes what go-bexpr makes of a table of expressions, for tests/unit/wire/test_bexpr.py:
//
//	go run . > ../../data/bexpr_cases.json
package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"runtime/debug"
	"strings"

	"github.com/hashicorp/go-bexpr"

	"moorage.invalid/conformance/bexpr/structs"
)

type outcome struct {
	Expression string `json:"expression"`
	Syntax     string `json:"syntax,omitempty"`
	Error      string `json:"error,omitempty"`
	Panics     bool   `json:"panics,omitempty"`
	Matches    bool   `json:"matches,omitempty"`
}

var volume = &structs.Volume{
	ID: "f-a", Name: "größe 😀", AccessMode: "single-node-writer", Capacity: 1048576, Healthy: -1, CreateIndex: 18446744073709551615,
	Schedulable: true, Parameters: map[string]string{"k": "v", "a/b": "c", "k.x": "y", "": "e", "not": "n", "5": "five", "größe": "g"},
	Flags: []string{"ro", "rw", "5", ""}, Modes: []structs.Mode{"m", "n"}, Numbers: []int64{1, -5}, Switches: []bool{true},
	Lists:        [][]string{{"a"}, nil},
	Topologies:   []*structs.Topology{{Segments: map[string]string{"rack": "r1"}}, {Segments: map[string]string{"rack": "r2", "zone": "z"}}},
	MountOptions: &structs.MountOptions{FSType: "ext4", MountFlags: []string{"noatime"}}, Inline: structs.MountOptions{FSType: "xfs"},
	Request:    &structs.TopologyRequest{Required: []*structs.Topology{{}}},
	ReadAllocs: map[string]*structs.MountOptions{"alloc": nil, "other": {FSType: "zfs"}},
	Maps:       map[string]map[string]string{"outer": {"inner": "x"}, "none": nil},
	Counts:     map[string]int64{"one": 1},
}

func run(expression string) (result outcome) {
	result.Expression = expression
	evaluator, err := bexpr.CreateEvaluator(expression)
	if err != nil {
		result.Syntax = err.Error()
		return result
	}
	defer func() {
		if recover() != nil {
			result.Panics = true
		}
	}()
	matches, err := evaluator.Evaluate(volume)
	if err != nil {
		result.Error = err.Error()
	}
	result.Matches = matches && err == nil
	return result
}

// stays is false for what depends on the order of a map, which Go shuffles.
func stays(first outcome) bool {
	for range 30 {
		if run(first.Expression) != first {
			return false
		}
	}
	return true
}

func line(value any) string {
	var out bytes.Buffer
	encoder := json.NewEncoder(&out)
	encoder.SetEscapeHTML(false)
	if err := encoder.Encode(value); err != nil {
		panic(err)
	}
	return strings.TrimSpace(out.String())
}

func version() string {
	info, _ := debug.ReadBuildInfo()
	for _, module := range info.Deps {
		if module.Path == "github.com/hashicorp/go-bexpr" {
			return module.Version
		}
	}
	return "unknown"
}

func main() {
	var lines []string
	for _, expression := range expressions() {
		if first := run(expression); stays(first) {
			lines = append(lines, line(first))
		}
	}
	fmt.Fprintf(os.Stdout, "{\"go-bexpr\": %q,\n\"datum\": %s,\n\"cases\": [\n%s\n]}\n", version(), line(volume), strings.Join(lines, ",\n"))
}
