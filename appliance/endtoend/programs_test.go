package endtoend

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"io"
	"mime"
	"mime/multipart"
	"net/mail"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"mailchute/appliance/trace"
)

// everyMode are settings with a listener for each way devices use TLS; one address may send.
const everyMode = `version = 1
hostname = "relay.contoso.com"
accepted_domains = ["contoso.com"]

[[smtp.listener]]
address = "127.0.0.1:0"
tls = "none"
[[smtp.listener]]
address = "127.0.0.2:0"
tls = "starttls"
[[smtp.listener]]
address = "127.0.0.3:0"
tls = "implicit"

[[device]]
name = "Floor 2"
addresses = ["127.0.0.1"]
`

// TestPrograms has two programs as devices that are older than Mailchute. A scan they attach arrives whole.
func TestPrograms(t *testing.T) {
	t.Parallel()
	scan, err := demoScan()
	if err != nil {
		t.Fatal(err)
	}
	cloud := newCloud(t, nil)
	box := newBox(t, everyMode, cloud.connector())
	cloud.trust(box)
	box.start()
	for name, program := range map[string]program{"swaks": swaks, "msmtp": msmtp} {
		t.Run(name, func(t *testing.T) {
			if _, err := exec.LookPath(name); err != nil {
				t.Skipf("%s is not installed: scripts/setup test does it", name)
			}
			for _, tls := range []string{"none", "starttls", "implicit"} {
				t.Run(tls, func(t *testing.T) {
					b, c := box.in(t), cloud.in(t)
					id := "<" + name + "-" + tls + "@scanner.contoso.com>"
					if said, err := program(id, "127.0.0.1", b.address(tls), tls).CombinedOutput(); err != nil {
						t.Fatalf("%v\n%s", err, said)
					}
					b.awaitEmpty()
					c.cameOnce(id)
					for _, arrived := range c.came(id) {
						attached, err := attachment(arrived.Body)
						if err != nil || !bytes.Equal(attached, scan) {
							t.Errorf("%d bytes of the scan's %d have arrived (%v)", len(attached), len(scan), err)
						}
					}
					record := allRecords(t, b)[id]
					if (record.TLS != "") != (tls != "none") || record.Device != "Floor 2" || record.Recipients[0].State != trace.Sent {
						t.Errorf("the story is %+v", record)
					}
				})
			}
			t.Run("stranger", func(t *testing.T) {
				b := box.in(t)
				said, err := program("<"+name+"@stranger.test>", "127.0.0.66", b.address("none"), "none").CombinedOutput()
				if err == nil || !bytes.Contains(said, []byte("127.0.0.66 may not send through relay.contoso.com")) {
					t.Errorf("%v: %s", err, said)
				}
				list, err := b.Client.Strangers(t.Context())
				if err != nil || len(list.Strangers) != 1 || list.Strangers[0].Address.String() != "127.0.0.66" {
					t.Errorf("strangers: %+v (%v)", list, err)
				}
			})
		})
	}
	box.stop()
}

// program makes the command that hands in the scan from a local address.
type program func(id, source, address, tls string) *exec.Cmd

func swaks(id, source, address, tls string) *exec.Cmd {
	arguments := []string{"--server", address, "--local-interface", source, "--helo", "scanner", "--from", from, "--to", to,
		"--header", "Message-Id: " + id, "--header", "Subject: Scan from Floor 2", "--suppress-data",
		"--attach-type", "application/pdf", "--attach", "@" + demoScanFile()}
	switch tls {
	case "starttls":
		arguments = append(arguments, "--tls")
	case "implicit":
		arguments = append(arguments, "--tls-on-connect")
	}
	return exec.Command("swaks", arguments...)
}

func msmtp(id, source, address, tls string) *exec.Cmd {
	host, port, _ := strings.Cut(address, ":")
	arguments := []string{"--host=" + host, "--port=" + port, "--source-ip=" + source, "--domain=scanner", "--from=" + from, "--auth=off"}
	switch tls {
	case "none":
		arguments = append(arguments, "--tls=off")
	case "starttls":
		arguments = append(arguments, "--tls=on", "--tls-starttls=on", "--tls-certcheck=off")
	case "implicit":
		arguments = append(arguments, "--tls=on", "--tls-starttls=off", "--tls-certcheck=off")
	}
	command := exec.Command("msmtp", append(arguments, to)...)
	command.Stdin = strings.NewReader(withScan(id))
	return command
}

// withScan is a message with the scan attached, its line ends those of a file on Unix.
func withScan(id string) string {
	scan, err := demoScan()
	if err != nil {
		panic(err)
	}
	var text strings.Builder
	fmt.Fprintf(&text, "From: %s\nTo: %s\nSubject: Scan from Floor 2\nDate: Mon, 02 Jun 2025 09:30:00 +0200\nMessage-ID: %s\nMIME-Version: 1.0\n"+
		"Content-Type: multipart/mixed; boundary=scan\n\n--scan\nContent-Type: application/pdf\nContent-Transfer-Encoding: base64\n\n", from, to, id)
	for encoded := base64.StdEncoding.EncodeToString(scan); encoded != ""; {
		n := min(76, len(encoded))
		text.WriteString(encoded[:n] + "\n")
		encoded = encoded[n:]
	}
	text.WriteString("\n--scan--\n")
	return text.String()
}

// demoScan is the PDF of the demo: three pages, a few hundred KB.
var demoScan = sync.OnceValues(func() ([]byte, error) {
	if said, err := exec.Command("go", "run", "mailchute/scripts/demoscan", demoScanFile()).CombinedOutput(); err != nil {
		return nil, fmt.Errorf("making the scan: %w\n%s", err, said)
	}
	return os.ReadFile(demoScanFile())
})

func demoScanFile() string { return filepath.Join(programs, "scan.pdf") }

// attachment takes the PDF out of a message.
func attachment(message []byte) ([]byte, error) {
	parsed, err := mail.ReadMessage(bytes.NewReader(message))
	if err != nil {
		return nil, err
	}
	_, parameters, err := mime.ParseMediaType(parsed.Header.Get("Content-Type"))
	if err != nil {
		return nil, err
	}
	parts := multipart.NewReader(parsed.Body, parameters["boundary"])
	for {
		part, err := parts.NextPart()
		if err != nil {
			return nil, err
		}
		if kind, _, _ := mime.ParseMediaType(part.Header.Get("Content-Type")); kind == "application/pdf" {
			return io.ReadAll(base64.NewDecoder(base64.StdEncoding, part))
		}
	}
}
