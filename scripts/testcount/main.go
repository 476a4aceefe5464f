// Testcount reads what `go test -json` prints, shows what failed and why tests were skipped, and prints one last line
// "N passed, N failed, N skipped", subtests included. A test skipped without a reason has failed, and so has a
// package that did not build. Exit status 1 where anything failed or nothing ran.
package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"
)

// event is one line of `go test -json` (go doc test2json).
type event struct {
	Action  string
	Package string
	Test    string
	Output  string
}

type tally struct {
	passed, failed, skipped int
	outputs                 map[[2]string]*strings.Builder // by package and test, of those still running
	broken                  map[string]bool                // packages with a failed test
}

func main() {
	t, err := count(os.Stdin, os.Stdout)
	if err != nil {
		fmt.Fprintln(os.Stderr, "testcount:", err)
		os.Exit(1)
	}
	fmt.Printf("%d passed, %d failed, %d skipped\n", t.passed, t.failed, t.skipped)
	if t.failed > 0 || t.passed == 0 {
		os.Exit(1)
	}
}

func count(in io.Reader, out io.Writer) (*tally, error) {
	t := &tally{outputs: map[[2]string]*strings.Builder{}, broken: map[string]bool{}}
	lines := bufio.NewReader(in)
	for {
		line, err := lines.ReadString('\n')
		if line != "" {
			var e event
			if json.Unmarshal([]byte(line), &e) != nil {
				fmt.Fprint(out, line) // of the build, or of make
			} else {
				t.add(e, out)
			}
		}
		if err == io.EOF {
			return t, nil
		}
		if err != nil {
			return nil, err
		}
	}
}

func (t *tally) add(e event, out io.Writer) {
	key := [2]string{e.Package, e.Test}
	output := t.outputs[key]
	if output == nil {
		output = new(strings.Builder)
		t.outputs[key] = output
	}
	switch e.Action {
	case "output", "build-output":
		output.WriteString(e.Output)
		return
	case "pass":
		if e.Test != "" {
			t.passed++
		}
	case "fail":
		// A package fails by its tests; where none did, it did not build, panicked or ran out of time.
		if e.Test != "" || !t.broken[e.Package] {
			t.failed++
			t.broken[e.Package] = true
			fmt.Fprintf(out, "FAIL %s %s\n%s", e.Package, e.Test, output)
		}
	case "build-fail":
		fmt.Fprint(out, output)
	case "skip":
		if e.Test == "" {
			break // a package without tests
		}
		if reason := skipReason(output.String()); reason != "" {
			t.skipped++
			fmt.Fprintf(out, "skipped: %s %s: %s\n", e.Package, e.Test, reason)
		} else {
			t.failed++
			t.broken[e.Package] = true
			fmt.Fprintf(out, "FAIL %s %s\n    skipped without a reason\n", e.Package, e.Test)
		}
	default:
		return
	}
	delete(t.outputs, key)
}

// skipReason is what a test said beside the lines that frame it.
func skipReason(output string) string {
	var words []string
	for line := range strings.Lines(output) {
		line = strings.TrimSpace(line)
		if strings.HasPrefix(line, "=== ") || strings.HasPrefix(line, "--- ") {
			continue
		}
		// file.go:12: reason
		if place, reason, found := strings.Cut(line, ": "); found && strings.Contains(place, ".go:") {
			line = reason
		}
		if line != "" && !strings.HasSuffix(line, ":") {
			words = append(words, line)
		}
	}
	return strings.Join(words, " ")
}
