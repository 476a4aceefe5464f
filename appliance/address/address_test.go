package address

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

func TestParse(t *testing.T) {
	long := strings.Repeat("a", 64)
	for _, c := range []struct {
		text string
		want Address
		back string // what String writes; empty: text
	}{
		{"scanner@contoso.com", Address{"scanner", "contoso.com"}, ""},
		{"Floor.2+scan@Contoso.COM", Address{"Floor.2+scan", "contoso.com"}, "Floor.2+scan@contoso.com"},
		{"o'neill!#$%&*/=?^_`{|}~-@x.org", Address{"o'neill!#$%&*/=?^_`{|}~-", "x.org"}, ""},
		{"root@localhost", Address{"root", "localhost"}, ""},
		{"scan@my_printer.local", Address{"scan", "my_printer.local"}, ""},
		{long + "@contoso.com", Address{long, "contoso.com"}, ""},

		{`"scanner"@contoso.com`, Address{"scanner", "contoso.com"}, "scanner@contoso.com"},
		{`"\s\c\a\n"@contoso.com`, Address{"scan", "contoso.com"}, "scan@contoso.com"},
		{`"a b> SIZE=1"@x.org`, Address{"a b> SIZE=1", "x.org"}, ""},
		{`"say \"hi\" \\ bye"@x.org`, Address{`say "hi" \ bye`, "x.org"}, ""},
		{`"a@b"@x.org`, Address{"a@b", "x.org"}, ""},
		{`"john..doe."@x.org`, Address{"john..doe.", "x.org"}, ""},

		{"root@[192.0.2.1]", Address{"root", "[192.0.2.1]"}, ""},
		{"root@[ipv6:2001:DB8:0::1]", Address{"root", "[IPv6:2001:db8::1]"}, "root@[IPv6:2001:db8::1]"},

		{"grüße@contoso.com", Address{"grüße", "contoso.com"}, ""},
		{"scan@XN--MNCHEN-3YA.de", Address{"scan", "xn--mnchen-3ya.de"}, "scan@xn--mnchen-3ya.de"},
	} {
		got, err := Parse(c.text)
		if err != nil || got != c.want {
			t.Errorf("Parse(%q) = %q, %v, want %q", c.text, got, err, c.want)
		}
		back := c.back
		if back == "" {
			back = c.text
		}
		if got.String() != back {
			t.Errorf("Parse(%q).String() = %q, want %q", c.text, got, back)
		}
	}
}

func TestParseRefuses(t *testing.T) {
	for _, c := range []struct{ text, reason string }{
		{"", "no @"},
		{"scanner", "no @"},
		{"@contoso.com", "before the @ is empty"},
		{`""@contoso.com`, "before the @ is empty"},
		{"scanner@", "domain is empty"},
		{"scan ner@contoso.com", "' ' in the local part"},
		{"<scanner@contoso.com>", "'<' in the local part"},
		{"a@b@contoso.com", "'@' is not allowed in a domain"},
		{".scan@contoso.com", "a dot at the start"},
		{"scan.@contoso.com", "a dot at the start"},
		{"sc..an@contoso.com", "a dot at the start"},
		{`"scan@contoso.com`, "ends within the quotes"},
		{`"scan\`, "ends within the quotes"},
		{`"scan"contoso.com`, "not followed by @"},
		{"scan\r\nRCPT@contoso.com", `'\r' in the local part`},
		{"\"scan\r\nRCPT TO:<x>\"@contoso.com", "control character, U+000D"},
		{"\"scan\x00\"@contoso.com", "control character, U+0000"},
		{"scan\u0085@contoso.com", "control character, U+0085"},
		{"gr\xfc\xdfe@contoso.com", "neither ASCII nor UTF-8"},
		{"scan@contoso.com\r\n", `'\r' is not allowed`},
		{"scan@contoso.com> SIZE=1", `'>' is not allowed`},
		{"scan@con;toso.com", `';' is not allowed`},
		{"scan@contoso..com", "two in a row"},
		{"scan@contoso.com.", "at its start or end"},
		{"scan@-contoso.com", "hyphen"},
		{"scan@contoso\u0000.com", "not allowed"},
		{"scan@\xfc.com", "neither ASCII nor UTF-8"},
		{"scan@\ufffd.com", "international domain name"},
		{"scan@xn--ü.com", "international domain name"},
		{"scan@[192.0.2.1", "address literal"},
		{"scan@[192.0.2.256]", "address literal"},
		{"scan@[2001:db8::1]", "address literal"},
		{"scan@[IPv6:192.0.2.1]", "address literal"},
		{"scan@[IPv6:fe80::1%eth0]", "address literal"},
		{"scan@[x-tag:anything]", "address literal"},
		{strings.Repeat("a", 65) + "@contoso.com", "65 octets, allowed are 64"},
		{`"` + strings.Repeat(`\"`, 32) + `"@contoso.com`, "66 octets, allowed are 64"},
		{"scan@" + strings.Repeat("a", 64) + ".com", "at most 63"},
		{"scan@" + strings.Repeat("abc.", 63) + "com", "allowed are 254"},
		{"scan@" + strings.Repeat("abc.", 64) + "com", "allowed are 255"},
		{strings.Repeat("a", 2000) + "@contoso.com", "at most 254"},
	} {
		got, err := Parse(c.text)
		if fault := (*Error)(nil); !errors.As(err, &fault) || !strings.Contains(fault.Reason, c.reason) {
			t.Errorf("Parse(%q) = %q, %v; want an error with %q", c.text, got, err, c.reason)
		}
		if err != nil && strings.ContainsAny(err.Error(), "\r\n\x00") {
			t.Errorf("Parse(%q): the error is not one line: %q", c.text, err)
		}
	}
}

func TestNullSender(t *testing.T) {
	null, err := ParseSender("")
	if err != nil || !null.IsNull() || null.String() != "" {
		t.Errorf("ParseSender of nothing = %q, %v", null, err)
	}
	if _, err := Parse(""); err == nil {
		t.Error("Parse took nothing for a mailbox")
	}
	if sender, err := ParseSender("a@b"); err != nil || sender.IsNull() {
		t.Errorf("ParseSender(a@b) = %q, %v", sender, err)
	}
}

func TestNeedsUTF8(t *testing.T) {
	for text, want := range map[string]bool{"scan@contoso.com": false, "scan@xn--mnchen-3ya.de": false, "büro@contoso.com": true} {
		if a, err := Parse(text); err != nil || a.NeedsUTF8() != want {
			t.Errorf("%s: needs UTF-8 is %v, %v; want %v", text, a.NeedsUTF8(), err, want)
		}
	}
}

// What go-smtp hands over has lost its quotes: New has to make it harmless again.
func TestNewRequotes(t *testing.T) {
	a, err := New("a b> SIZE=1", "x.org")
	if err != nil || a.String() != `"a b> SIZE=1"@x.org` {
		t.Errorf("got %s, %v", a, err)
	}
	if _, err := New("a\rb", "x.org"); err == nil {
		t.Error("New took a CR")
	}
}

func TestWrittenAddressesReadBack(t *testing.T) {
	local := rapid.OneOf(
		rapid.StringMatching(`[ -~]{1,70}`),
		rapid.StringMatching(`[a-z.]{1,20}`),
		rapid.StringN(1, 20, 80),
	)
	domain := rapid.SampledFrom([]string{"contoso.com", "XN--MNCHEN-3YA.de", "[192.0.2.1]", "[IPv6:::1]", "a", strings.Repeat("abc.", 60) + "x"})
	rapid.Check(t, func(t *rapid.T) {
		a, err := New(local.Draw(t, "local"), domain.Draw(t, "domain"))
		if err != nil {
			t.Skip("not an address")
		}
		checkWritten(t, a)
	})
}

// checkWritten says what every written address keeps to: it reads back, is short enough, and stays one word
// within the brackets of a path.
func checkWritten(t interface{ Fatalf(string, ...any) }, a Address) {
	text := a.String()
	if again, err := Parse(text); err != nil || again != a {
		t.Fatalf("%q is written as %q and read back as %q, %v", [2]string{a.Local, a.Domain}, text, again, err)
	}
	if len(text) > maxAddress {
		t.Fatalf("%q has %d octets", text, len(text))
	}
	isQuoted := false
	for i := 0; i < len(text); i++ {
		switch c := text[i]; {
		case c < ' ' || c == 0x7f:
			t.Fatalf("%q has a control character", text)
		case isQuoted && c == '\\':
			i++
		case c == '"':
			isQuoted = !isQuoted
		case !isQuoted && strings.IndexByte(" <>()\\,;", c) >= 0:
			t.Fatalf("%q has %q outside quotes", text, c)
		}
	}
	if isQuoted {
		t.Fatalf("%q does not end its quotes", text)
	}
}

func FuzzParse(f *testing.F) {
	for _, text := range []string{
		"scanner@contoso.com", `"a b> SIZE=1"@x.org`, `"\""@x`, "root@[192.0.2.1]", "root@[IPv6:2001:db8::1]",
		"büro@münchen.de", "a@b@c", `"a`, "a.@b", "\r\n@b", "a@xn--a", "a@。", "a@ｃontoso.com", "a@İ.com",
	} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		if a, err := Parse(text); err == nil {
			checkWritten(t, a)
			if _, err := ParseScope(a.String()); err != nil {
				t.Fatalf("%q is no scope: %v", a, err)
			}
		}
		if pattern, err := ParsePattern(text); err == nil {
			if again, err := ParsePattern(pattern.String()); err != nil || again != pattern {
				t.Fatalf("pattern %q is written as %q and read back as %q, %v", text, pattern, again, err)
			}
		}
	})
}

func TestCovering(t *testing.T) {
	for _, c := range []struct {
		domain   string
		accepted bool
		want     []string
	}{
		{"contoso.com", false, []string{"contoso.com", "*.com", "*"}},
		{"contoso.com", true, []string{"contoso.com", "*.com", "accepted", "*"}},
		{"a.sales.contoso.com", false, []string{"a.sales.contoso.com", "*.sales.contoso.com", "*.contoso.com", "*.com", "*"}},
		{"localhost", false, []string{"localhost", "*"}},
		{"[192.0.2.1]", false, []string{"[192.0.2.1]", "*"}},
	} {
		var got []string
		for pattern := range Covering(c.domain, c.accepted) {
			got = append(got, pattern.String())
		}
		if !slices.Equal(got, c.want) {
			t.Errorf("%s is covered by %q, want %q", c.domain, got, c.want)
		}
	}
}

func TestCoveringStops(t *testing.T) {
	for stop := 1; stop <= 4; stop++ {
		seen := 0
		for range Covering("sales.contoso.com", true) {
			if seen++; seen == stop {
				break
			}
		}
		if seen != stop {
			t.Errorf("stopped after %d patterns, want %d", seen, stop)
		}
	}
}

func TestParsePattern(t *testing.T) {
	for text, want := range map[string]string{
		"*": "*", "accepted": "accepted", "Contoso.COM": "contoso.com", "*.Contoso.com": "*.contoso.com",
	} {
		if got, err := ParsePattern(text); err != nil || got.String() != want {
			t.Errorf("ParsePattern(%q) = %q, %v, want %q", text, got, err, want)
		}
	}
	for _, text := range []string{"", "*.", "**", "*contoso.com", "*.*.com", "a@contoso.com", "contoso com", ".com", "[192.0.2.1]"} {
		if got, err := ParsePattern(text); err == nil {
			t.Errorf("ParsePattern(%q) = %q, want an error", text, got)
		}
	}
}

func TestScope(t *testing.T) {
	scan, _ := Parse("Scan@contoso.com")
	for _, c := range []struct {
		scope string
		want  bool
	}{
		{"scan@contoso.com", true},
		{"SCAN@Contoso.com", true},
		{"contoso.com", true},
		{"other@contoso.com", false},
		{"com", false},
		{"sales.contoso.com", false},
	} {
		scope, err := ParseScope(c.scope)
		if err != nil || scope.Covers(scan) != c.want {
			t.Errorf("%s covers %s: %v, %v; want %v", c.scope, scan, scope.Covers(scan), err, c.want)
		}
		if scope.Covers(Address{}) {
			t.Errorf("%s covers the null sender", c.scope)
		}
		if again, err := ParseScope(scope.String()); err != nil || again != scope {
			t.Errorf("%s is written as %s and read back as %s, %v", c.scope, scope, again, err)
		}
	}
	if (Scope{}).Covers(Address{}) {
		t.Error("the zero scope covers the null sender")
	}
	for _, text := range []string{"", "*", "*.contoso.com", "a b@contoso.com", "@contoso.com"} {
		if scope, err := ParseScope(text); err == nil {
			t.Errorf("ParseScope(%q) = %q, want an error", text, scope)
		}
	}
}

func BenchmarkParse(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		if _, err := Parse("scanner.floor2@contoso.com"); err != nil {
			b.Fatal(err)
		}
	}
}
