package smtpclient

import (
	"strings"
	"testing"
)

func TestCheckPath(t *testing.T) {
	for _, path := range []string{"", "a@contoso.com", `"a b"@contoso.com`, `"a\"> b"@contoso.com`, "jörg@contoso.com", "a@[192.0.2.1]", "postmaster"} {
		if problem := checkPath(path); problem != "" {
			t.Errorf("%q: %s", path, problem)
		}
	}
	for _, path := range []string{"a@b>", "a b@c", "a@b\r\nRSET", `"a\` + "\n" + `"@b`, `"a@b`, "a\x00@b", "<a@b", `a\@b`, strings.Repeat("a", 513), `"a\`} {
		if checkPath(path) == "" {
			t.Errorf("%q passes", path)
		}
	}
}

// FuzzCheckPath: a path that passes cannot end its command or add a parameter to it.
func FuzzCheckPath(f *testing.F) {
	for _, seed := range []string{"a@b", `"a b> SIZE=1"@x`, `"\"">x`, "a>\r\nRCPT TO:<b", `"`, `\`} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, path string) {
		if checkPath(path) != "" {
			return
		}
		if strings.ContainsAny(path, "\r\n\x00") {
			t.Fatalf("%q would end the command", path)
		}
		// Read it as a server does: the first ">" outside quotes ends the path.
		quoted := false
		for at := 0; at < len(path); at++ {
			switch c := path[at]; {
			case quoted && c == '\\':
				at++
			case c == '"':
				quoted = !quoted
			case !quoted && (c == '>' || c == ' '):
				t.Fatalf("%q would end early", path)
			}
		}
		if quoted {
			t.Fatalf("%q would swallow the end", path)
		}
	})
}
