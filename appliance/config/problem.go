package config

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// Problem is one thing that is wrong with a settings document.
type Problem struct {
	File    string `json:"file"`
	Line    int    `json:"line"`    // from 1; where a key is missing, that of its table's header
	Column  int    `json:"column"`  // from 1, in characters
	Key     string `json:"key"`     // "connector[2].port", items counted from 1; empty: the document as a whole
	Found   string `json:"found"`   // what was found
	Allowed string `json:"allowed"` // what would be right
	Do      string `json:"do"`      // what to do about it
}

func (p Problem) Error() string {
	key := p.Key
	if key != "" {
		key += ": "
	}
	return fmt.Sprintf("%s:%d:%d: %sfound %s; allowed: %s; %s", p.File, p.Line, p.Column, key, p.Found, p.Allowed, p.Do)
}

// Problems is all that is wrong with a settings document, in the order of its lines, at least one. It is the
// error of Parse and Check.
type Problems []Problem

// Error has one line a problem.
func (p Problems) Error() string {
	lines := make([]string, len(p))
	for i := range p {
		lines[i] = p[i].Error()
	}
	return strings.Join(lines, "\n")
}

// maxProblems keeps the answer to a document of a quite different kind readable.
const maxProblems = 100

// problems collects.
type problems struct {
	file string
	list Problems
}

func (p *problems) add(at position, key, found, allowed, do string) {
	p.list = append(p.list, Problem{File: p.file, Line: at.line, Column: at.column, Key: key,
		Found: found, Allowed: allowed, Do: do})
}

// value reports what is wrong with a value, once for each.
func (p *problems) value(n *node, found, allowed, do string) {
	if !n.isBad {
		n.isBad = true
		p.add(n.at, n.path(), found, allowed, do)
	}
}

// asError is nil where there are none.
func (p *problems) asError() error {
	if len(p.list) == 0 {
		return nil
	}
	slices.SortStableFunc(p.list, func(a, b Problem) int {
		return cmp.Or(cmp.Compare(a.Line, b.Line), cmp.Compare(a.Column, b.Column))
	})
	return p.list[:min(len(p.list), maxProblems)]
}
