package route

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"mailchute/appliance/address"
	"mailchute/appliance/config"
)

// settings makes a document of the connectors given as "name: key = value; key = value".
func settings(t interface{ Fatal(...any) }, connectors ...string) *config.Config {
	document := "version = 1\nhostname = \"relay.contoso.com\"\naccepted_domains = [\"contoso.com\", \"fabrikam.com\"]\n"
	for _, connector := range connectors {
		name, keys, _ := strings.Cut(connector, ": ")
		document += fmt.Sprintf("[[connector]]\nname = %q\nkind = \"smarthost\"\nhost = \"mx.contoso.com\"\n%s\n",
			name, strings.ReplaceAll(keys, "; ", "\n"))
	}
	parsed, err := config.Parse("test", []byte(document))
	if err != nil {
		t.Fatal(err)
	}
	return parsed
}

func sender(t interface{ Fatal(...any) }, text string) address.Address {
	a, err := address.ParseSender(text)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// The worked example of Microsoft's text on connectors: three of them, for all accepted domains, for
// contoso.com, and for *.contoso.com. Mail to fabrikam.com takes the first, to contoso.com the second, to
// sales.contoso.com the wildcard.
func TestMicrosoftsExample(t *testing.T) {
	table := NewTable(settings(t,
		`all: domains = ["accepted"]`,
		`exact: domains = ["contoso.com"]`,
		`wildcard: domains = ["*.contoso.com"]`,
	))
	for to, want := range map[string]string{
		"a@fabrikam.com":      "all",
		"a@contoso.com":       "exact",
		"a@sales.contoso.com": "wildcard",
		"a@example.org":       "",
	} {
		if got, why, ok := table.Route(sender(t, "scan@contoso.com"), sender(t, to)); got != want || ok != (want != "") {
			t.Errorf("mail to %s goes by %q, %q, %v; want %q", to, got, why, ok, want)
		}
	}
}

func TestRoute(t *testing.T) {
	for _, c := range []struct {
		name       string
		connectors []string
		from, to   string
		want, why  string // the connector, and why in full; no connector: a part of it
	}{
		{"one for all", []string{`m365: domains = ["*"]`},
			"scan@contoso.com", "a@example.org", "m365", "recipient domain *, priority 10"},
		{"the longest wildcard", []string{`short: domains = ["*.com"]`, `long: domains = ["*.sales.contoso.com"]`, `middle: domains = ["*.contoso.com"]`},
			"scan@contoso.com", "a@eu.sales.contoso.com", "long", "recipient domain *.sales.contoso.com, priority 10"},
		{"a wildcard does not cover its own domain", []string{`wildcard: domains = ["*.contoso.com"]`, `all: domains = ["*"]`},
			"scan@contoso.com", "a@contoso.com", "all", "recipient domain *, priority 10"},
		{"a wildcard before accepted", []string{`accepted: domains = ["accepted"]`, `wildcard: domains = ["*.com"]`},
			"scan@contoso.com", "a@fabrikam.com", "wildcard", "recipient domain *.com, priority 10"},
		{"accepted before all, whatever the priority", []string{`all: domains = ["*"]; priority = 1`, `accepted: domains = ["accepted"]; priority = 99`},
			"scan@contoso.com", "a@fabrikam.com", "accepted", "recipient domain accepted, priority 99"},
		{"the lower priority first", []string{`second: domains = ["*"]; priority = 20`, `first: domains = ["*"]; priority = 5`},
			"scan@contoso.com", "a@example.org", "first", "recipient domain *, priority 5"},
		{"then the order of the document", []string{`first: domains = ["*"]`, `second: domains = ["*"]`},
			"scan@contoso.com", "a@example.org", "first", "recipient domain *, priority 10"},
		{"the case of a domain does not count", []string{`m365: domains = ["Contoso.com"]`},
			"scan@contoso.com", "a@CONTOSO.com", "m365", "recipient domain contoso.com, priority 10"},

		{"a sender's connector before the better domain", []string{`exact: domains = ["example.org"]`, `hr: domains = ["*"]; senders = ["hr@contoso.com"]`},
			"HR@contoso.com", "a@example.org", "hr", "sender hr@contoso.com, recipient domain *, priority 10"},
		{"a sender's address before its domain", []string{`domain: domains = ["example.org"]; senders = ["contoso.com"]`, `mailbox: domains = ["*"]; senders = ["hr@contoso.com"]; priority = 99`},
			"hr@contoso.com", "a@example.org", "mailbox", "sender hr@contoso.com, recipient domain *, priority 99"},
		{"a sender's domain before all senders", []string{`all: domains = ["*"]; priority = 1`, `domain: domains = ["*"]; senders = ["fabrikam.com", "contoso.com"]`},
			"scan@contoso.com", "a@example.org", "domain", "sender domain contoso.com, recipient domain *, priority 10"},
		{"among one sender's connectors the better domain", []string{`all: domains = ["*"]; senders = ["contoso.com"]; priority = 1`, `exact: domains = ["example.org"]; senders = ["contoso.com"]`},
			"scan@contoso.com", "a@example.org", "exact", "sender domain contoso.com, recipient domain example.org, priority 10"},
		{"another sender's connector is none", []string{`hr: domains = ["*"]; senders = ["hr@contoso.com"]`, `rest: domains = ["*"]; priority = 99`},
			"scan@contoso.com", "a@example.org", "rest", "recipient domain *, priority 99"},
		{"a sender's domain is not those below it", []string{`m365: domains = ["*"]; senders = ["contoso.com"]`},
			"scan@sales.contoso.com", "a@example.org", "", "from scan@sales.contoso.com to the domain example.org"},

		{"the null sender by those for all", []string{`hr: domains = ["*"]; senders = ["contoso.com"]; priority = 1`, `rest: domains = ["*"]`},
			"", "a@example.org", "rest", "recipient domain *, priority 10"},
		{"the null sender by nothing else", []string{`hr: domains = ["*"]; senders = ["contoso.com"]`},
			"", "a@example.org", "", "from the null sender to the domain example.org"},
		{"a literal by the one for all only", []string{`wildcard: domains = ["*.1"]`, `all: domains = ["*"]`},
			"scan@contoso.com", "a@[192.0.2.1]", "all", "recipient domain *, priority 10"},
		{"no connector", nil, "scan@contoso.com", "a@example.org", "", "no connector takes mail"},
	} {
		got, why, ok := NewTable(settings(t, c.connectors...)).Route(sender(t, c.from), sender(t, c.to))
		if got != c.want || ok != (c.want != "") {
			t.Errorf("%s: goes by %q (%s), %v; want %q", c.name, got, why, ok, c.want)
		}
		if ok && why != c.why || !strings.Contains(why, c.why) {
			t.Errorf("%s: why is %q, want %q", c.name, why, c.why)
		}
	}
}

// The lookup agrees with ranking every connector by the rules as they are written down.
func TestRouteAgreesWithRanking(t *testing.T) {
	patterns := []string{"*", "accepted", "contoso.com", "*.contoso.com", "*.com", "sales.contoso.com", "*.sales.contoso.com"}
	senders := []string{"contoso.com", "a@contoso.com", "fabrikam.com", "b@fabrikam.com"}
	rapid.Check(t, func(t *rapid.T) {
		var lines []string
		for i := range rapid.IntRange(0, 5).Draw(t, "connectors") {
			lines = append(lines, fmt.Sprintf("%d: domains = [%s]; senders = [%s]; priority = %d", i,
				list(rapid.SliceOfN(rapid.SampledFrom(patterns), 1, 3).Draw(t, "domains")),
				list(rapid.SliceOfN(rapid.SampledFrom(senders), 0, 2).Draw(t, "senders")),
				rapid.IntRange(1, 2).Draw(t, "priority")))
		}
		document := settings(t, lines...)
		from := sender(t, rapid.SampledFrom([]string{"", "a@contoso.com", "b@contoso.com", "b@fabrikam.com", "c@example.org"}).Draw(t, "from"))
		to := sender(t, rapid.SampledFrom([]string{"x@contoso.com", "x@sales.contoso.com", "x@eu.sales.contoso.com", "x@fabrikam.com", "x@example.org"}).Draw(t, "to"))

		type candidate struct {
			name                    string
			sender, domain, setting int
		}
		var candidates []candidate
		for _, connector := range document.Connectors {
			for _, pattern := range connector.Domains {
				s, d := senderRank(connector.Senders, from), domainRank(pattern.String(), to.Domain, document.AcceptedDomains)
				if s > 0 && d > 0 {
					candidates = append(candidates, candidate{connector.Name, s, d, connector.Priority})
				}
			}
		}
		slices.SortStableFunc(candidates, func(a, b candidate) int {
			return cmp.Or(-cmp.Compare(a.sender, b.sender), -cmp.Compare(a.domain, b.domain), cmp.Compare(a.setting, b.setting))
		})
		want := ""
		if len(candidates) > 0 {
			want = candidates[0].name
		}
		if got, why, _ := NewTable(document).Route(from, to); got != want {
			t.Fatalf("from %q to %q goes by %q (%s), want %q", from, to, got, why, want)
		}
	})
}

func list(texts []string) string {
	quoted := make([]string, len(texts))
	for i, text := range texts {
		quoted[i] = fmt.Sprintf("%q", text)
	}
	return strings.Join(quoted, ", ")
}

func senderRank(scopes []address.Scope, from address.Address) int {
	rank := 0
	if len(scopes) == 0 {
		rank = 1
	}
	for _, scope := range scopes {
		if !scope.Covers(from) {
			continue
		}
		rank = max(rank, 2)
		if strings.Contains(scope.String(), "@") {
			rank = 3
		}
	}
	return rank
}

func domainRank(pattern, domain string, accepted []string) int {
	switch {
	case pattern == domain:
		return 1000
	case strings.HasPrefix(pattern, "*.") && strings.HasSuffix(domain, pattern[1:]):
		return len(pattern)
	case pattern == "accepted" && slices.Contains(accepted, domain):
		return 2
	case pattern == "*":
		return 1
	}
	return 0
}

func BenchmarkRoute(b *testing.B) {
	table := NewTable(settings(b, `all: domains = ["*"]`, `accepted: domains = ["accepted"]`,
		`hr: domains = ["*"]; senders = ["hr@contoso.com"]`, `wildcard: domains = ["*.contoso.com"]`))
	from, to := sender(b, "scan@contoso.com"), sender(b, "a@example.org")
	b.ReportAllocs()
	for b.Loop() {
		if _, _, ok := table.Route(from, to); !ok {
			b.Fatal("no connector")
		}
	}
}
