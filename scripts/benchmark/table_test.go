package main

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestTable(t *testing.T) {
	shown := []group{{rows: []row{
		{"more", "more is better", perSecond, timesAtLeast(5)},
		{"less", "less is better", milliseconds, timesAtMost(0.6)},
		{"short", "not reached", perSecond, timesAtLeast(2)},
		{"small", "by itself", megabytes, under(64)},
		{"exact", "under means under", plain, under(1.3)},
		{"limit", "passes or fails", verdict, passes},
		{"alone", "without a peer", perSecond, timesAtLeast(2)},
		{"missing", "not measured", seconds, under(2)},
	}}}
	r := results{}
	r.add(tools, figures{"more": 9000})
	for _, v := range []float64{500, 700, 600} {
		r.add(postfix, figures{"more": v, "less": v / 500, "short": 10, "small": 12})
	}
	for _, v := range []float64{9999, 3000, 1} {
		r.add(mailchute, figures{"more": v, "less": 0.5, "short": 19.9, "small": 63.9, "exact": 1.3, "limit": 1, "alone": 7})
	}
	want := `| row | work | tools alone | Postfix | Mailchute | ratio | goal | reached |
|---|---|--:|--:|--:|--:|---|---|
| more | more is better | 9000/s | 600/s | 3000/s | 5.00 × | at least 5 × | yes |
| less | less is better | – | 1.20 ms | 0.50 ms | 0.42 × | at most 0.6 × | yes |
| short | not reached | – | 10.0/s | 19.9/s | 1.99 × | at least 2 × | no |
| small | by itself | – | 12 MB | 64 MB | 5.33 × | under 64 | yes |
| exact | under means under | – | – | 1.30 | – | under 1.3 | no |
| limit | passes or fails | – | – | passes | – | passes | yes |
| alone | without a peer | – | – | 7.0/s | – | at least 2 × | – |
| missing | not measured | – | – | – | – | under 2 | – |
`
	if diff := cmp.Diff(want, table(shown, r)); diff != "" {
		t.Errorf("table (-want +got):\n%s", diff)
	}
}

func TestMedian(t *testing.T) {
	for _, test := range []struct {
		values []float64
		want   float64
	}{
		{nil, 0},
		{[]float64{3}, 3},
		{[]float64{9, 1, 2}, 2},
		{[]float64{4, 1, 2, 9}, 3},
	} {
		if got := median(test.values); got != test.want {
			t.Errorf("median(%v) = %v, want %v", test.values, got, test.want)
		}
	}
}

// TestALimitThatFailedOnceFails: the median of a verdict must not hide a failure.
func TestALimitThatFailedOnceFails(t *testing.T) {
	r := results{}
	for _, v := range []float64{1, 0, 1} {
		r.add(mailchute, figures{"limited": v})
	}
	if _, reached := judge(row{"limited", "", verdict, passes}, r); reached != "no" {
		t.Errorf("reached %q, want no", reached)
	}
}

func TestSelectGroups(t *testing.T) {
	for _, test := range []struct {
		only, want string
	}{
		{"", "small scans large latency distant memory backlog"},
		{"arrived", "small"},
		{"written latency", "scans latency"},
		{"backlog", "backlog"},
		{"filled start", "backlog"},
	} {
		selected, err := selectGroups(strings.Fields(test.only))
		if err != nil {
			t.Fatal(err)
		}
		var names []string
		for _, g := range selected {
			names = append(names, g.name)
		}
		if got := strings.Join(names, " "); got != test.want {
			t.Errorf("--only %q: %s, want %s", test.only, got, test.want)
		}
	}
	if _, err := selectGroups([]string{"latencies"}); err == nil || !strings.Contains(err.Error(), `found "latencies", known are accepted, arrived`) {
		t.Errorf("an unknown row: error %v", err)
	}
}
