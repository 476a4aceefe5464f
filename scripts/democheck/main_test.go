package main

import (
	"os"
	"strings"
	"testing"
)

// README.md has the commands for the second terminal, and the demo prints the same.
func TestREADMEAndDemoSayTheSame(t *testing.T) {
	readme, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	commands, err := secondTerminal(string(readme))
	if err != nil {
		t.Fatal(err)
	}
	script, err := os.ReadFile("../run")
	if err != nil {
		t.Fatal(err)
	}
	// In the script's text a line joint is written \\ and three values are variables.
	printed := squeeze(strings.NewReplacer("\\\\\n", "\\\n", "$box_port", "2525", "$demo", "build/demo", "$state", "build/demo/mailchute").Replace(string(script)))
	for _, command := range commands {
		if !strings.Contains(printed, squeeze(command)) {
			t.Errorf("scripts/run does not print: %s", command)
		}
	}
}

func TestSecondTerminal(t *testing.T) {
	for name, test := range map[string]struct{ readme, want string }{
		"none":    {"```sh\nmake run\n```\n", "no block of commands"},
		"too few": {"```sh\nswaks \\\n  --to a\n```\n", `found ["swaks    --to a"]`},
	} {
		if _, err := secondTerminal(test.readme); err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: error %v, want %q", name, err, test.want)
		}
	}
}

func TestPDFAttachment(t *testing.T) {
	message := strings.ReplaceAll(`Received: from scanner
Content-Type: multipart/mixed; boundary="x"

--x
Content-Type: text/plain

see attachment
--x
Content-Type: application/pdf; name="scan.pdf"
Content-Transfer-Encoding: base64

JVBE
Ri0=
--x--
`, "\n", "\r\n")
	if pdf, err := pdfAttachment([]byte(message)); string(pdf) != "%PDF-" || err != nil {
		t.Errorf("got %q, %v", pdf, err)
	}
	for name, broken := range map[string]string{
		"no PDF":      strings.Replace(message, "application/pdf", "text/html", 1),
		"no Received": strings.Replace(message, "Received", "X", 1),
		"cut":         message[:len(message)-30],
	} {
		if pdf, err := pdfAttachment([]byte(broken)); err == nil {
			t.Errorf("%s: got %q", name, pdf)
		}
	}
}
