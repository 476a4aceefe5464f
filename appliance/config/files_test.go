package config

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// folder makes a state folder: each file "name mode".
func folder(t *testing.T, files ...string) string {
	state := t.TempDir()
	for _, file := range files {
		name, mode, _ := strings.Cut(file, " ")
		path := filepath.Join(state, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte("x"), 0o600); err != nil {
			t.Fatal(err)
		}
		bits := os.FileMode(0o600)
		switch mode {
		case "":
		case "0644":
			bits = 0o644
		case "0640":
			bits = 0o640
		case "0400":
			bits = 0o400
		default:
			t.Fatalf("mode %q", mode)
		}
		if err := os.Chmod(path, bits); err != nil {
			t.Fatal(err)
		}
	}
	return state
}

const withFiles = minimal + `certificate = "relay"
ca_file = "certs/roots.pem"
username = "relay"
password_file = "secrets/m365"
`

func TestCheckFiles(t *testing.T) {
	for _, c := range []struct {
		name  string
		files []string
		want  []string // one problem each, by a part of it; STATE is the folder
	}{
		{"all there", []string{"certs/relay.crt 0644", "certs/relay.key", "certs/roots.pem 0644", "secrets/m365"}, nil},
		{"secrets for reading only", []string{"certs/relay.crt", "certs/relay.key 0400", "certs/roots.pem", "secrets/m365 0400"}, nil},
		{"nothing there", nil, []string{
			`15:15: connector[1].certificate: found STATE/certs/relay.crt, which is not there`,
			`16:11: connector[1].ca_file: found STATE/certs/roots.pem, which is not there`,
			`18:17: connector[1].password_file: found a file, which is not there`,
		}},
		{"no key", []string{"certs/relay.crt", "certs/roots.pem", "secrets/m365"}, []string{
			`15:15: connector[1].certificate: found STATE/certs/relay.key, which is not there`}},
		{"secrets others can read", []string{"certs/relay.crt", "certs/relay.key 0640", "certs/roots.pem", "secrets/m365 0644"}, []string{
			`15:15: connector[1].certificate: found STATE/certs/relay.key with mode 0640; allowed: mode 0600`,
			`18:17: connector[1].password_file: found a file with mode 0644; allowed: mode 0600`,
		}},
		{"a folder", []string{"certs/relay.crt/x", "certs/relay.key", "certs/roots.pem", "secrets/m365"}, []string{
			`15:15: connector[1].certificate: found STATE/certs/relay.crt, which is no regular file`}},
		{"below a file", []string{"certs/relay.crt", "certs/relay.key", "certs/roots.pem", "secrets"}, []string{
			`18:17: connector[1].password_file: found a file, which cannot be read: not a directory`}},
	} {
		state := folder(t, c.files...)
		settings, err := Check(FileName, []byte(withFiles), state)
		var got []string
		if err != nil {
			got = strings.Split(strings.ReplaceAll(err.Error(), state, "STATE"), "\n")
		} else if settings.Connectors[0].Certificate != "relay" {
			t.Errorf("%s: settings are %+v", c.name, settings)
		}
		if len(got) != len(c.want) {
			t.Errorf("%s: problems are\n%s\nwant %d", c.name, strings.Join(got, "\n"), len(c.want))
			continue
		}
		for i := range got {
			if !strings.Contains(got[i], c.want[i]) {
				t.Errorf("%s: problem is\n%s\nwant\n%s", c.name, got[i], c.want[i])
			}
		}
	}
}

// What is wrong in the document and what is wrong with the files come together.
func TestCheckTellsAll(t *testing.T) {
	_, err := Check(FileName, []byte(strings.Replace(withFiles, `hostname = "relay.contoso.com"`, `hostname = 5`, 1)), t.TempDir())
	problems, _ := err.(Problems)
	if len(problems) != 4 || problems[0].Key != "hostname" || problems[3].Key != "connector[1].password_file" {
		t.Errorf("problems are\n%v", err)
	}
	if _, err := Check(FileName, []byte("x"), t.TempDir()); len(err.(Problems)) != 1 {
		t.Errorf("problems are\n%v", err)
	}
}

// A password that stands where the name of its file belongs does not get into the error.
func TestCheckKeepsSecrets(t *testing.T) {
	_, err := Check(FileName, []byte(strings.Replace(withFiles, "secrets/m365", "hunter2", 1)), t.TempDir())
	if err == nil || strings.Contains(err.Error(), "hunter2") {
		t.Errorf("error is %v", err)
	}
}

func TestPaths(t *testing.T) {
	if got := Path("/state", "secrets/m365"); got != "/state/secrets/m365" {
		t.Error(got)
	}
	if got := Path("/state", "/etc/ssl/roots.pem"); got != "/etc/ssl/roots.pem" {
		t.Error(got)
	}
	relay := Connector{Certificate: "relay"}
	if certificate, key := relay.CertificateFiles("/state"); certificate != "/state/certs/relay.crt" || key != "/state/certs/relay.key" {
		t.Error(certificate, key)
	}
	if certificate, key := (&Connector{}).CertificateFiles("/state"); certificate != "" || key != "" {
		t.Error(certificate, key)
	}
}
