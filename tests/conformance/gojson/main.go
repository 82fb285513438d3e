// Command gojson writes what Go's encoding/json makes of a table of bodies, for tests/unit/wire/test_gojson.py:
//
//	go run . > ../../data/gojson_cases.json
//
// A body and its text are written with one character for each byte (Latin-1), so that broken UTF-8 survives.
package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"runtime"
	"strings"

	"moorage.invalid/conformance/gojson/structs"
)

type decodeCase struct {
	Shape string          `json:"shape"`
	Body  string          `json:"body"`
	Error string          `json:"error,omitempty"`
	Value json.RawMessage `json:"value,omitempty"`
}

type encodeCase struct {
	Text string `json:"text"`
	JSON string `json:"json"`
}

var shapes = map[string]func() any{
	"register": func() any { return new(structs.CSIVolumeRegisterRequest) },
	"snapshot": func() any { return new(structs.CSISnapshotCreateRequest) },
	"odds":     func() any { return new(structs.Odds) },
}

func latin1(raw []byte) string {
	runes := make([]rune, len(raw))
	for i, b := range raw {
		runes[i] = rune(b)
	}
	return string(runes)
}

// decode does what an HTTP handler does: one value from a stream, a body of no bytes refused before that.
func decode(shape string, body []byte) decodeCase {
	result := decodeCase{Shape: shape, Body: latin1(body)}
	if len(body) == 0 {
		result.Error = "Request body is empty"
		return result
	}
	into := shapes[shape]()
	if err := json.NewDecoder(bytes.NewReader(body)).Decode(into); err != nil {
		result.Error = err.Error()
		return result
	}
	result.Value = encode(into)
	return result
}

func encode(value any) []byte {
	var out bytes.Buffer
	encoder := json.NewEncoder(&out)
	encoder.SetEscapeHTML(false)
	if err := encoder.Encode(value); err != nil {
		return nil // a time that can be read but not written; such a case has neither error nor value
	}
	return bytes.TrimRight(out.Bytes(), "\n")
}

func write(out io.Writer, name string, lines []any) {
	texts := make([]string, len(lines))
	for i, line := range lines {
		texts[i] = string(encode(line))
	}
	fmt.Fprintf(out, ",\n%q: [\n%s\n]", name, strings.Join(texts, ",\n"))
}

func main() {
	var decoded, encoded []any
	for _, each := range inputs() {
		decoded = append(decoded, decode(each.shape, each.body))
	}
	for _, text := range texts() {
		encoded = append(encoded, encodeCase{text, string(encode(text))})
	}
	fmt.Fprintf(os.Stdout, "{\"go\": %q", runtime.Version())
	write(os.Stdout, "decode", decoded)
	write(os.Stdout, "encode", encoded)
	fmt.Fprintln(os.Stdout, "\n}")
}
