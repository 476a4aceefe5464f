package config

import (
	"encoding/json"
	"flag"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/pelletier/go-toml/v2"

	"mailchute/appliance/address"
)

var update = flag.Bool("update", false, "write the expected files in testdata anew")

// minimal has what is required and nothing else.
const minimal = `
version = 1
hostname = "relay.contoso.com"
accepted_domains = ["contoso.com"]
[[smtp.listener]]
address = ":25"
[[device]]
name = "Floor 2"
addresses = ["192.168.1.40"]
[[connector]]
name = "m365"
kind = "smarthost"
host = "contoso-com.mail.protection.outlook.com"
domains = ["*"]
`

// compare lets cmp look into the values of other packages by their text.
var compare = cmp.Options{
	cmp.Comparer(func(a, b netip.Addr) bool { return a == b }),
	cmp.Comparer(func(a, b AddressRange) bool { return a == b }),
	cmp.Comparer(func(a, b address.Pattern) bool { return a == b }),
	cmp.Comparer(func(a, b address.Scope) bool { return a == b }),
}

func TestParse(t *testing.T) {
	got, err := Parse(FileName, []byte(`
version = 1
hostname = "Relay.Contoso.com"
accepted_domains = ["contoso.com", "Fabrikam.COM"]
smtp.max_connections = 1_000
device = [{ name = "All", addresses = ["10.0.0.0/8", "::ffff:192.0.2.1"] }]
[[smtp.listener]]
address = ":465"
tls = "implicit"
[[connector]]
name = "m365"
kind = "smarthost"
host = "MX.contoso.com"
port = 0x19
ip = "4"
source_address = "192.0.2.7"
domains = ["*.Contoso.com", "accepted"]
senders = ["Scan@contoso.com", "fabrikam.com"]
[retry]
first = "90s"
`))
	if err != nil {
		t.Fatal(err)
	}
	pattern := func(text string) address.Pattern { p, _ := address.ParsePattern(text); return p }
	scope := func(text string) address.Scope { s, _ := address.ParseScope(text); return s }
	want := &Config{
		Version:         1,
		Hostname:        "relay.contoso.com",
		AcceptedDomains: []string{"contoso.com", "fabrikam.com"},
		SMTP: SMTP{MaxMessageSize: 157286400, MaxConnections: 1000, MaxConnectionsPerAddress: 50,
			Listeners: []Listener{{":465", ListenImplicit}}},
		Devices: []Device{{"All", []AddressRange{
			{netip.MustParsePrefix("10.0.0.0/8")}, {netip.MustParsePrefix("192.0.2.1/32")}}}},
		Connectors: []Connector{{Name: "m365", Kind: Smarthost, Host: "mx.contoso.com", Port: 25, TLS: TLSVerified,
			TLSMode: TLSStartTLS, IP: IP4, SourceAddress: netip.MustParseAddr("192.0.2.7"),
			Domains: []address.Pattern{pattern("*.contoso.com"), pattern("accepted")},
			Senders: []address.Scope{scope("scan@contoso.com"), scope("fabrikam.com")}, Priority: 10, Connections: 4}},
		Retry: Retry{First: 90e9, Ceiling: 30 * minute, GiveUp: 5 * day},
	}
	if diff := cmp.Diff(want, got, compare); diff != "" {
		t.Error(diff)
	}
}

// A box without the optional tables has their defaults too, and the one listener.
func TestParseBare(t *testing.T) {
	got, err := Parse(FileName, []byte("\ufeffversion = 1\r\nhostname = \"a.b\"\r\naccepted_domains = [\"b\"]\r\n"))
	if err != nil {
		t.Fatal(err)
	}
	want := &Config{Version: 1, Hostname: "a.b", AcceptedDomains: []string{"b"},
		SMTP: SMTP{MaxMessageSize: 157286400, MaxConnections: 500, MaxConnectionsPerAddress: 50,
			Listeners: []Listener{{":25", ListenStartTLS}}},
		Devices: []Device{}, Connectors: []Connector{},
		Retry: Retry{First: minute, Ceiling: 30 * minute, GiveUp: 5 * day}}
	if diff := cmp.Diff(want, got, compare); diff != "" {
		t.Error(diff)
	}
}

// The example shows every key, and as the value of one that may be left out, its default.
func TestExample(t *testing.T) {
	shown, err := Parse("example.toml", []byte(Example()))
	if err != nil {
		t.Fatal(err)
	}
	applied, err := Parse("minimal.toml", []byte(minimal))
	if err != nil {
		t.Fatal(err)
	}
	root, _ := read([]byte(Example()), &problems{})
	lines := strings.Split(Example(), "\n")
	var compareTables func(shown, applied reflect.Value, n *node)
	compareTables = func(shown, applied reflect.Value, n *node) {
		for _, field := range reflect.VisibleFields(shown.Type()) {
			name := field.Tag.Get("toml")
			if name != field.Tag.Get("json") {
				t.Errorf("%s.%s is %q in TOML, %q in JSON", shown.Type(), field.Name, name, field.Tag.Get("json"))
			}
			child := n.child(name)
			if child == nil {
				t.Errorf("%s.%s is not in the example", n.path(), name)
				continue
			}
			a, b := shown.FieldByIndex(field.Index), applied.FieldByIndex(field.Index)
			switch {
			case child.kind == tableKind:
				compareTables(a, b, child)
			case child.kind == arrayKind && len(child.items) > 0 && child.items[0].kind == tableKind:
				compareTables(a.Index(0), b.Index(0), child.items[0])
			default:
				if field.Tag.Get("required") == "" && !reflect.DeepEqual(a.Interface(), b.Interface()) {
					t.Errorf("%s is %v in the example, but %v when it is left out", child.path(), a, b)
				}
				if !strings.Contains(lines[child.at.line-1], "#") {
					t.Errorf("%s has no comment", child.path())
				}
			}
		}
	}
	compareTables(reflect.ValueOf(shown).Elem(), reflect.ValueOf(applied).Elem(), root)
}

// Settings that are written out, as the web page will, read back the same; and JSON has the names of TOML.
func TestSettingsReadBack(t *testing.T) {
	data, err := os.ReadFile("testdata/right.toml")
	if err != nil {
		t.Fatal(err)
	}
	settings, err := Parse("right.toml", data)
	if err != nil {
		t.Fatal(err)
	}
	asTOML, err := toml.Marshal(settings)
	if err != nil {
		t.Fatal(err)
	}
	again, err := Parse("again.toml", asTOML)
	if err != nil {
		t.Fatalf("%v\n%s", err, asTOML)
	}
	if diff := cmp.Diff(settings, again, compare); diff != "" {
		t.Error(diff)
	}
	asJSON, err := json.Marshal(settings)
	if err != nil {
		t.Fatal(err)
	}
	again = new(Config)
	if err := json.Unmarshal(asJSON, again); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(settings, again, compare); diff != "" {
		t.Error(diff)
	}
}

func TestLimits(t *testing.T) {
	for name, c := range map[string]struct{ document, want string }{
		"size":     {strings.Repeat("#", maxDocument+1), "more than 1 MiB"},
		"nesting":  {"a = " + strings.Repeat("[", 100_000), "not TOML"},
		"encoding": {"a = \"\xff\"", "not TOML"},
		"a long value": {strings.Replace(minimal, "m365", strings.Repeat("m", 1000), 1),
			`found "` + strings.Repeat("m", 60) + `..."; allowed: 1 to 64`},
		"a key with line ends": {minimal + "\"a\\nb\" = 1", `connector[1]."a\nb": found an unknown key`},
	} {
		_, err := Parse(FileName, []byte(c.document))
		if err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "\n") || len(err.Error()) > 500 {
			t.Errorf("%s: error is %.600v, want one line with %q", name, err, c.want)
		}
	}
	_, err := Parse(FileName, []byte(minimal+strings.Repeat("[[device]]\n", 1000)))
	if problems, _ := err.(Problems); len(problems) != maxProblems {
		t.Errorf("a document full of problems has %d", len(problems))
	}
}

// What is not text of a document must neither crash nor hang the checks; what is right stays right when it is
// written out.
func FuzzParse(f *testing.F) {
	documents, _ := filepath.Glob("testdata/*.toml")
	for _, document := range documents {
		data, err := os.ReadFile(document)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	f.Add([]byte(Example()))
	f.Add([]byte("a.b.c = 1\n[a.b]\n[[a.b.c]]\nx = {y = [[{z = 1}]]}"))
	f.Fuzz(func(t *testing.T, data []byte) {
		settings, err := Parse(FileName, data)
		if err != nil {
			for _, problem := range err.(Problems) {
				if problem.Line < 1 || problem.Column < 1 || problem.Found == "" || problem.Allowed == "" || problem.Do == "" {
					t.Fatalf("problem %+v", problem)
				}
			}
			return
		}
		written, err := toml.Marshal(settings)
		if err != nil {
			t.Fatal(err)
		}
		again, err := Parse(FileName, written)
		if err != nil {
			t.Fatalf("%v\n%s", err, written)
		}
		if diff := cmp.Diff(settings, again, compare); diff != "" {
			t.Fatal(diff)
		}
	})
}

// Each testdata/*.toml is a document, each *.txt beside it what Parse says about it; none: it is right.
func TestProblems(t *testing.T) {
	documents, err := filepath.Glob("testdata/*.toml")
	if err != nil || len(documents) == 0 {
		t.Fatalf("%d documents, %v", len(documents), err)
	}
	for _, document := range documents {
		t.Run(filepath.Base(document), func(t *testing.T) {
			data, err := os.ReadFile(document)
			if err != nil {
				t.Fatal(err)
			}
			got := ""
			if _, err := Parse(filepath.Base(document), data); err != nil {
				got = err.Error() + "\n"
			}
			expected := strings.TrimSuffix(document, ".toml") + ".txt"
			if *update {
				if err := os.WriteFile(expected, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(expected)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(strings.Split(string(want), "\n"), strings.Split(got, "\n")); diff != "" {
				t.Error(diff)
			}
		})
	}
}
