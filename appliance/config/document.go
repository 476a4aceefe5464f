package config

import (
	"bytes"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/pelletier/go-toml/v2"
	"github.com/pelletier/go-toml/v2/unstable"
)

// node is one value of a TOML document and where it stands. The library decodes, but tells positions only of
// what it refuses itself; the checks here need one for each key and value.
type node struct {
	parent *node
	name   string // its key; of an item of an array "[1]", counted from 1
	kind   kind
	at     position         // of the value; of a table: its header
	key    position         // of the key that names it
	text   string           // of a scalar: a string's content, else as written
	items  []*node          // of an array, or of an array of tables
	keys   map[string]*node // of a table
	order  []string         // of a table: its keys as they come
	// isOpen: a table that is only implied so far, by a header or key of one of its own tables.
	isOpen bool
	// isBad: a problem has been reported, so there is no use in looking closer.
	isBad bool
}

type position struct{ line, column int }

type kind string

const (
	tableKind  kind = "a table"
	arrayKind  kind = "an array"
	stringKind kind = "a string"
	intKind    kind = "a whole number"
	floatKind  kind = "a fraction"
	boolKind   kind = "a truth value"
	timeKind   kind = "a date or time"
)

func newTable(at position) *node {
	return &node{kind: tableKind, at: at, key: at, keys: map[string]*node{}}
}

// child is the value at a key of a table, nil where there is none.
func (n *node) child(key string) *node { return n.keys[key] }

// given is the value at a key of a table if it is there and nothing was wrong with it so far, else nil.
func (n *node) given(key string) *node {
	if n == nil {
		return nil
	}
	if child := n.keys[key]; child != nil && !child.isBad {
		return child
	}
	return nil
}

// isFlawed tells whether something was wrong with one of these keys of a table, so that what depends on their
// values cannot be judged.
func (n *node) isFlawed(keys ...string) bool {
	return n == nil || slices.ContainsFunc(keys, func(key string) bool {
		child := n.keys[key]
		return child != nil && child.isBad
	})
}

// each yields the items of an array that nothing was wrong with so far.
func (n *node) each(yield func(int, *node) bool) {
	if n == nil {
		return
	}
	for i, item := range n.items {
		if !item.isBad && !yield(i, item) {
			return
		}
	}
}

func (n *node) set(key string, child *node) {
	child.parent, child.name = n, key
	n.keys[key] = child
	n.order = append(n.order, key)
}

func (n *node) add(item *node) {
	n.items = append(n.items, item)
	item.parent, item.name = n, "["+strconv.Itoa(len(n.items))+"]"
}

// path is the node's full key, on one line: "connector[2].domains[1]".
func (n *node) path() string {
	if n.parent == nil {
		return ""
	}
	before, name := n.parent.path(), n.name
	if n.parent.kind == arrayKind {
		return before + name
	}
	if !bareKey.MatchString(name) {
		name = strconv.Quote(clip(name))
	}
	if before == "" {
		return name
	}
	return before + "." + name
}

// bareKey is a key that TOML lets stand without quotes.
var bareKey = regexp.MustCompile(`^[A-Za-z0-9_-]{1,60}$`)

// reader builds the tree of a document.
type reader struct {
	parser unstable.Parser
	data   []byte
	lines  []int // offset of each line's first byte
	found  *problems
}

// read gives the tree of a document, or reports why it is not TOML; a key set twice does not keep it from
// going on.
func read(data []byte, found *problems) (root *node, isTOML bool) {
	r := &reader{data: data, lines: []int{0}, found: found}
	for i, c := range data {
		if c == '\n' {
			r.lines = append(r.lines, i+1)
		}
	}
	root = newTable(position{1, 1})
	table := root
	r.parser.Reset(data)
	for r.parser.NextExpression() {
		switch expression := r.parser.Expression(); expression.Kind {
		case unstable.Table, unstable.ArrayTable:
			table = r.header(root, expression)
		case unstable.KeyValue:
			r.keyValue(table, expression)
		}
	}
	if err := r.parser.Error(); err != nil {
		at := position{1, 1}
		if fault := (*unstable.ParserError)(nil); errors.As(err, &fault) && fault.Highlight != nil {
			at = r.position(r.parser.Range(fault.Highlight).Offset)
		}
		found.add(at, "", "what is not TOML: "+err.Error(), "TOML (https://toml.io)", "correct the syntax")
		return nil, false
	}
	return root, true
}

// checkTOML has the library look for what read is lenient about, such as a table that is extended where TOML
// closes it, or a date that is none.
func checkTOML(data []byte, found *problems) {
	err := toml.Unmarshal(data, &map[string]any{})
	if err == nil {
		return
	}
	at := position{1, 1}
	if fault := (*toml.DecodeError)(nil); errors.As(err, &fault) {
		at.line, at.column = fault.Position()
	}
	found.add(at, "", "what is not TOML: "+strings.TrimPrefix(err.Error(), "toml: "), "TOML (https://toml.io)", "correct the syntax")
}

// header goes to, or opens, the table that a [header] or [[header]] names.
func (r *reader) header(root *node, expression *unstable.Node) *node {
	table := root
	for key := expression.Key(); key.Next(); {
		name, at := string(key.Node().Data), r.position(key.Node().Raw.Offset)
		child := table.child(name)
		if !key.IsLast() {
			table = r.descend(table, name, at)
			continue
		}
		if expression.Kind == unstable.ArrayTable {
			if child == nil {
				child = &node{kind: arrayKind, at: at, key: at}
				table.set(name, child)
			}
			if child.kind != arrayKind {
				return r.twice(child, at)
			}
			item := newTable(at)
			child.add(item)
			return item
		}
		if child == nil {
			child = newTable(at)
			table.set(name, child)
		} else if child.kind != tableKind || !child.isOpen {
			return r.twice(child, at)
		}
		child.isOpen, child.at, child.key = false, at, at
		return child
	}
	return table
}

func (r *reader) keyValue(table *node, expression *unstable.Node) {
	for key := expression.Key(); key.Next(); {
		name, at := string(key.Node().Data), r.position(key.Node().Raw.Offset)
		if !key.IsLast() {
			table = r.descend(table, name, at)
			continue
		}
		after := key.Node().Raw.Offset + key.Node().Raw.Length
		value := &node{parent: table, name: name, at: r.position(r.skipEquals(after)), key: at}
		r.fill(value, expression.Value())
		if first := table.child(name); first != nil {
			r.twice(first, at)
			return
		}
		table.set(name, value)
	}
}

// descend goes to the table at a key that has further keys behind it: the last one of an array of tables.
func (r *reader) descend(table *node, name string, at position) *node {
	child := table.child(name)
	if child == nil {
		child = newTable(at)
		child.isOpen = true
		table.set(name, child)
	}
	if child.kind == arrayKind && len(child.items) > 0 {
		child = child.items[len(child.items)-1]
	}
	if child.kind != tableKind {
		return r.twice(child, at)
	}
	return child
}

// twice reports a key that is set again, and gives a table in which what belongs to it is forgotten.
func (r *reader) twice(first *node, at position) *node {
	r.found.add(at, first.path(), "the key a second time", "each key once",
		fmt.Sprintf("keep one of them; the first is in line %d", first.key.line))
	return newTable(at)
}

// fill copies a value out of the parser, which reuses its nodes. Arrays have no position there: theirs is the
// one that n has already.
func (r *reader) fill(n *node, from *unstable.Node) {
	if from.Raw.Length > 0 {
		n.at = r.position(from.Raw.Offset)
	}
	n.text = string(from.Data)
	switch from.Kind {
	case unstable.Array:
		n.kind = arrayKind
		for items := from.Children(); items.Next(); {
			item := &node{at: n.at, key: n.at}
			n.add(item)
			r.fill(item, items.Node())
		}
	case unstable.InlineTable:
		n.kind, n.keys = tableKind, map[string]*node{}
		for keys := from.Children(); keys.Next(); {
			r.keyValue(n, keys.Node())
		}
	case unstable.String:
		n.kind = stringKind
	case unstable.Integer:
		n.kind = intKind
	case unstable.Float:
		n.kind = floatKind
	case unstable.Bool:
		n.kind = boolKind
	default:
		n.kind = timeKind
	}
}

// skipEquals goes from the end of a key to its value.
func (r *reader) skipEquals(offset uint32) uint32 {
	for int(offset) < len(r.data) && strings.IndexByte(" \t=", r.data[offset]) >= 0 {
		offset++
	}
	return offset
}

// position counts lines and characters from 1.
func (r *reader) position(offset uint32) position {
	low, high := 0, len(r.lines)
	for high-low > 1 {
		if middle := (low + high) / 2; r.lines[middle] <= int(offset) {
			low = middle
		} else {
			high = middle
		}
	}
	return position{low + 1, utf8.RuneCount(r.data[r.lines[low]:offset]) + 1}
}

// withoutMark drops the byte order mark that some Windows editors write.
func withoutMark(data []byte) []byte { return bytes.TrimPrefix(data, []byte("\ufeff")) }
