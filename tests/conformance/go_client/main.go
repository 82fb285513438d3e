// The official Go client of Nomad against a running Moorage, unmodified: every method that makes sense here, with all
// its options. The address comes from NOMAD_ADDR, as for the nomad CLI. One line for each step that is right; the first
// wrong answer ends the program with a line that begins with WRONG and exit code 1.
//
//	NOMAD_ADDR=http://127.0.0.1:4646 go run . [plugin ID, else "directory"]
//
// It leaves nothing behind when it succeeds. It needs a plugin whose controller creates, expands and lists volumes and
// makes, lists and deletes snapshots.
package main

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/hashicorp/nomad/api"
)

// tester is the client and what the steps share.
type tester struct {
	client *api.Client
	plugin string
	node   string
	run    string
}

func main() {
	client, err := api.NewClient(api.DefaultConfig())
	if err != nil {
		fail("a client by the environment", err)
	}
	t := &tester{client: client, plugin: "directory", run: fmt.Sprintf("go-%d", os.Getpid())}
	if len(os.Args) > 1 {
		t.plugin = os.Args[1]
	}
	steps := []struct {
		name string
		run  func()
	}{
		{"status, regions, agent", t.agent},
		{"plugins and nodes", t.plugins},
		{"namespaces", t.namespaces},
		{"a volume from create to delete", t.volume},
		{"errors as the client tells them", t.refusals},
		{"ids with brackets and spaces", t.oddIDs},
		{"query options and paging", t.lists},
		{"blocking queries", t.blocking},
		{"snapshots", t.snapshots},
		{"external list, register, deregister", t.registered},
		{"search", t.search},
		{"jobs, ACLs and what else is asked", t.others},
	}
	for _, step := range steps {
		step.run()
		fmt.Println("right:", step.name)
	}
}

// fail ends the program over what is wrong.
func fail(what string, found any) {
	fmt.Printf("WRONG: %s: %v\n", what, found)
	os.Exit(1)
}

// must is for calls that may not fail.
func must(what string, err error) {
	if err != nil {
		fail(what, err)
	}
}

// want compares what was found with what should be.
func want[T comparable](what string, found, expected T) {
	if found != expected {
		fail(what, fmt.Sprintf("found %v, expected %v", found, expected))
	}
}

// refused checks the status and the text of an error.
func refused(what string, err error, status int, text string) {
	var unexpected api.UnexpectedResponseError
	if !errors.As(err, &unexpected) {
		fail(what, fmt.Sprintf("no error of an answer: %v", err))
	}
	want(what+", status", unexpected.StatusCode(), status)
	if !strings.Contains(unexpected.Body(), text) {
		fail(what, fmt.Sprintf("%q does not hold %q", unexpected.Body(), text))
	}
}

// read checks the headers of a read: without an index a client cannot wait.
func read(what string, meta *api.QueryMeta) {
	want(what+", X-Nomad-KnownLeader", meta.KnownLeader, true)
	if meta.LastIndex == 0 {
		fail(what, "X-Nomad-Index is 0")
	}
}
