package main

import (
	"bytes"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"
	"unicode"

	"mailchute/appliance/config"
)

// page is output for people, put together before it is printed. What strangers wrote is in it, so it is
// cleaned as a whole.
type page struct{ bytes.Buffer }

func (p *page) line(format string, values ...any) { fmt.Fprintf(p, format+"\n", values...) }

// text writes a label and a text that may have several lines, these below each other; nothing where it is empty.
func (p *page) text(indent, label, text string) {
	if text = strings.TrimSpace(text); text == "" {
		return
	}
	lines := strings.Split(strings.ReplaceAll(text, "\r", ""), "\n")
	p.line("%s%s%s", indent, label, lines[0])
	for _, line := range lines[1:] {
		p.line("%s%*s%s", indent, len(label), "", line)
	}
}

// table writes rows in columns that line up, indented; below a row, the notes with its index.
func (p *page) table(indent string, rows [][]string, notes map[int]string) {
	var columns bytes.Buffer
	writer := tabwriter.NewWriter(&columns, 0, 0, 2, ' ', 0)
	for _, row := range rows {
		for i, cell := range row {
			if i > 0 {
				writer.Write([]byte{'\t'})
			}
			io.WriteString(writer, oneLine(cell))
		}
		writer.Write([]byte{'\n'})
	}
	writer.Flush()
	for i, row := range strings.SplitAfter(columns.String(), "\n") {
		if row = strings.TrimRight(row, " \n"); row != "" {
			p.line("%s%s", indent, row)
		}
		p.WriteString(notes[i])
	}
}

func (p *page) print(writer io.Writer) error {
	_, err := io.WriteString(writer, clean(p.String()))
	return err
}

// clean replaces what could do more to a terminal than show a character: what a stranger wrote in a
// subject must not move the cursor.
func clean(text string) string {
	return strings.Map(func(r rune) rune {
		if r == '\n' || unicode.IsGraphic(r) {
			return r
		}
		return '\uFFFD'
	}, strings.ToValidUTF8(text, "\uFFFD"))
}

func oneLine(text string) string {
	return strings.Map(func(r rune) rune {
		if r == '\n' || r == '\t' || r == '\r' || r == '\v' || r == '\f' {
			return ' '
		}
		return r
	}, text)
}

// moment is a local time: without the date where that is today's.
func (t *terminal) moment(at time.Time) string {
	if at.IsZero() {
		return "-"
	}
	at, now := at.Local(), t.now().Local()
	if at.Year() == now.Year() && at.YearDay() == now.YearDay() {
		return at.Format("15:04:05")
	}
	return at.Format("2006-01-02 15:04:05")
}

// since is how long ago something was, in words.
func (t *terminal) since(at time.Time) string { return words(t.now().Sub(at)) }

// until is when something will be, in words.
func (t *terminal) until(at time.Time) string {
	if wait := at.Sub(t.now()); wait > 0 {
		return "in " + words(wait)
	}
	return "now"
}

// words tells a duration as people do: "5 seconds", "2 hours", "3 days".
func words(duration time.Duration) string {
	const day = 24 * time.Hour
	for _, unit := range []struct {
		from, length time.Duration
		name         string
	}{
		{2 * day, day, "day"},
		{2 * time.Hour, time.Hour, "hour"},
		{2 * time.Minute, time.Minute, "minute"},
	} {
		if duration >= unit.from {
			return plural(int(duration/unit.length), unit.name)
		}
	}
	return plural(int(max(duration, 0)/time.Second), "second")
}

func plural(count int, noun string) string {
	if count == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", count, noun)
}

// size tells bytes as people do: "999 B", "12 KB", "3.4 GB".
func size(bytes int64) string {
	if bytes < 1000 {
		return fmt.Sprintf("%d B", bytes)
	}
	value := float64(bytes)
	for _, unit := range []string{"KB", "MB", "GB", "TB"} {
		value /= 1000
		if value < 9.95 {
			return fmt.Sprintf("%.1f %s", value, unit)
		}
		if value < 999.5 || unit == "TB" {
			return fmt.Sprintf("%.0f %s", value, unit)
		}
	}
	panic("unreachable")
}

// parseTime reads a time a person types: a date, a date and time, a time of today, or how long ago.
func (t *terminal) parseTime(text string) (time.Time, error) {
	if text == "" {
		return time.Time{}, nil
	}
	for _, layout := range []string{time.DateOnly, "2006-01-02 15:04", time.DateTime, "2006-01-02T15:04", "2006-01-02T15:04:05"} {
		if at, err := time.ParseInLocation(layout, text, time.Local); err == nil {
			return at, nil
		}
	}
	if at, err := time.Parse(time.RFC3339, text); err == nil {
		return at, nil
	}
	now := t.now().Local()
	for _, layout := range []string{"15:04", time.TimeOnly} {
		if at, err := time.Parse(layout, text); err == nil {
			return time.Date(now.Year(), now.Month(), now.Day(), at.Hour(), at.Minute(), at.Second(), 0, time.Local), nil
		}
	}
	if ago, err := config.ParseDuration(text); err == nil {
		return now.Add(-time.Duration(ago)), nil
	}
	return time.Time{}, usageError("%q is not a time: a date (2026-03-02), a date and time (2026-03-02 09:30), a time of today (09:30), or how long ago (90m, 2h, 3d)", text)
}
