package address

import "testing"

// A domain is the same whether it comes in U-labels, composed or not, or in A-labels.
func TestInternationalDomains(t *testing.T) {
	for text, want := range map[string]string{
		"MÜNCHEN.de":         "xn--mnchen-3ya.de",
		"mu\u0308nchen.de":   "xn--mnchen-3ya.de",
		"XN--MNCHEN-3YA.de":  "xn--mnchen-3ya.de",
		"straße.de":          "xn--strae-oqa.de",
		"例え。jp":              "xn--r8jz45g.jp",
		"ｃｏｎｔｏｓｏ.com":        "contoso.com",
		"büro_1.contoso.com": "xn--bro_1-kva.contoso.com",
	} {
		if got, err := ParseDomain(text); err != nil || got != want {
			t.Errorf("ParseDomain(%q) = %q, %v, want %q", text, got, err, want)
		}
	}
	if a, err := Parse("büro@MÜNCHEN.de"); err != nil || a.String() != "büro@xn--mnchen-3ya.de" || !a.NeedsUTF8() {
		t.Errorf("got %s, %v", a, err)
	}
	if a, err := Parse("scan@münchen.de"); err != nil || a.NeedsUTF8() {
		t.Errorf("got %s, %v: only the local part asks for SMTPUTF8", a, err)
	}
	if p, err := ParsePattern("*.münchen.de"); err != nil || p.String() != "*.xn--mnchen-3ya.de" {
		t.Errorf("got %s, %v", p, err)
	}
}
