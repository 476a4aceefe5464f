package main

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestCount(t *testing.T) {
	tests := map[string]struct {
		events string
		counts [3]int // passed, failed, skipped
		says   string
	}{
		"pass": {`
{"Action":"run","Package":"p","Test":"TestA"}
{"Action":"output","Package":"p","Test":"TestA","Output":"=== RUN   TestA\n"}
{"Action":"pass","Package":"p","Test":"TestA/sub"}
{"Action":"pass","Package":"p","Test":"TestA"}
{"Action":"pass","Package":"p"}
{"Action":"skip","Package":"q"}`, [3]int{2, 0, 0}, ""},
		"fail": {`
{"Action":"output","Package":"p","Test":"TestA","Output":"    a_test.go:3: wrong\n"}
{"Action":"fail","Package":"p","Test":"TestA"}
{"Action":"output","Package":"p","Output":"FAIL\n"}
{"Action":"fail","Package":"p"}`, [3]int{0, 1, 0}, "FAIL p TestA\n    a_test.go:3: wrong\n"},
		"panic": {`
{"Action":"output","Package":"p","Output":"panic: oh\n"}
{"Action":"fail","Package":"p"}`, [3]int{0, 1, 0}, "FAIL p \npanic: oh\n"},
		"does not build": {`
go: warning
{"ImportPath":"p","Action":"build-output","Output":"p.go:1: bad\n"}
{"ImportPath":"p","Action":"build-fail"}
{"Action":"fail","Package":"p"}`, [3]int{0, 1, 0}, "go: warning\np.go:1: bad\nFAIL p \n"},
		"skipped with a reason": {`
{"Action":"output","Package":"p","Test":"TestA","Output":"=== RUN   TestA\n"}
{"Action":"output","Package":"p","Test":"TestA","Output":"    a_test.go:3: no tool: install it\n"}
{"Action":"output","Package":"p","Test":"TestA","Output":"--- SKIP: TestA (0.00s)\n"}
{"Action":"skip","Package":"p","Test":"TestA"}`, [3]int{0, 0, 1}, "skipped: p TestA: no tool: install it\n"},
		"skipped without": {`
{"Action":"output","Package":"p","Test":"TestA","Output":"=== RUN   TestA\n"}
{"Action":"output","Package":"p","Test":"TestA","Output":"    a_test.go:3: \n"}
{"Action":"skip","Package":"p","Test":"TestA"}`, [3]int{0, 1, 0}, "FAIL p TestA\n    skipped without a reason\n"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			var out strings.Builder
			tally, err := count(strings.NewReader(strings.TrimPrefix(test.events, "\n")), &out)
			if err != nil {
				t.Fatal(err)
			}
			if got := [3]int{tally.passed, tally.failed, tally.skipped}; got != test.counts {
				t.Errorf("counts %v, want %v", got, test.counts)
			}
			if diff := cmp.Diff(test.says, out.String()); diff != "" {
				t.Error(diff)
			}
		})
	}
}
