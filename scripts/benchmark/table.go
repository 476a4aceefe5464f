package main

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// figures are what one measurement found, by the name of the row they belong to.
type figures map[string]float64

// String names the figures in order, with the units of their rows.
func (f figures) String() string {
	var b strings.Builder
	for _, name := range slices.Sorted(maps.Keys(f)) {
		for _, g := range groups {
			for _, r := range g.rows {
				if r.name == name {
					fmt.Fprintf(&b, "%s %s  ", name, r.unit.format(f[name]))
				}
			}
		}
	}
	return strings.TrimSpace(b.String())
}

// results are the figures of all rounds.
type results map[contender]map[string][]float64

func (r results) add(c contender, f figures) {
	if r[c] == nil {
		r[c] = map[string][]float64{}
	}
	for name, value := range f {
		r[c][name] = append(r[c][name], value)
	}
}

// median is the median of a row's rounds, of a verdict the worst, and whether there was any.
func (r results) median(c contender, row row) (float64, bool) {
	values := r[c][row.name]
	if len(values) == 0 {
		return 0, false
	}
	if row.unit == verdict {
		return slices.Min(values), true
	}
	return median(values), true
}

// unit is how a figure is shown.
type unit int

const (
	plain unit = iota
	perSecond
	milliseconds
	seconds
	megabytes
	verdict // 1 passes, anything less fails
)

func (u unit) format(v float64) string {
	switch u {
	case perSecond:
		if v < 100 {
			return fmt.Sprintf("%.1f/s", v)
		}
		return fmt.Sprintf("%.0f/s", v)
	case milliseconds:
		return fmt.Sprintf("%.2f ms", v)
	case seconds:
		return fmt.Sprintf("%.2f s", v)
	case megabytes:
		return fmt.Sprintf("%.0f MB", v)
	case verdict:
		if v >= 1 {
			return "passes"
		}
		return "fails"
	}
	return fmt.Sprintf("%.2f", v)
}

// goal judges Mailchute's figure, by itself or divided by Postfix's.
type goal struct {
	text    string
	ratio   bool
	reached func(float64) bool
}

func timesAtLeast(x float64) goal {
	return goal{fmt.Sprintf("at least %g ×", x), true, func(v float64) bool { return v >= x }}
}

func timesAtMost(x float64) goal {
	return goal{fmt.Sprintf("at most %g ×", x), true, func(v float64) bool { return v <= x }}
}

func atLeast(x float64) goal {
	return goal{fmt.Sprintf("at least %g", x), false, func(v float64) bool { return v >= x }}
}

func under(x float64) goal {
	return goal{fmt.Sprintf("under %g", x), false, func(v float64) bool { return v < x }}
}

var passes = goal{"passes", false, func(v float64) bool { return v >= 1 }}

// table is Markdown: a line a row, with what was not measured left as a dash.
func table(groups []group, results results) string {
	var b strings.Builder
	b.WriteString("| row | work | tools alone | Postfix | Mailchute | ratio | goal | reached |\n")
	b.WriteString("|---|---|--:|--:|--:|--:|---|---|\n")
	for _, g := range groups {
		for _, r := range g.rows {
			cells := []string{r.name, r.work}
			for _, c := range everyone {
				cell := "–"
				if v, ok := results.median(c, r); ok {
					cell = r.unit.format(v)
				}
				cells = append(cells, cell)
			}
			ratio, reached := judge(r, results)
			cells = append(cells, ratio, r.goal.text, reached)
			b.WriteString("| " + strings.Join(cells, " | ") + " |\n")
		}
	}
	return b.String()
}

// judge returns the last two findings of a row, dashes where a figure is missing.
func judge(r row, results results) (ratio, reached string) {
	ratio, reached = "–", "–"
	value, ok := results.median(mailchute, r)
	if !ok {
		return ratio, reached
	}
	peer, compared := results.median(postfix, r)
	compared = compared && peer > 0
	if compared {
		ratio = fmt.Sprintf("%.2f ×", value/peer)
	}
	if r.goal.ratio {
		if !compared {
			return ratio, reached
		}
		value /= peer
	}
	if r.goal.reached(value) {
		return ratio, "yes"
	}
	return ratio, "no"
}
