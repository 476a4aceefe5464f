package sim

import (
	"bytes"
	"go/parser"
	"go/token"
	"io"
	"net"
	"path/filepath"
	"strings"
	"testing"
)

func FuzzParsePath(f *testing.F) {
	for _, seed := range []string{
		"FROM:<a@b.example> SIZE=1", "FROM:<>", `FROM:<"a b> SIZE=1"@b>`, `FROM:<"a\"b"@b>`, "FROM:<@x,@y:a@b>",
		"FROM:<é@b.example> SMTPUTF8", "FROM:<a@[127.0.0.1]>", "FROM:<postmaster>", "FROM:<a@b> =", "FROM:<@:@:>",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, argument string) {
		mailbox, parameters, err := parsePath(argument, "FROM:")
		if err != nil {
			if !strings.HasPrefix(err.Error(), "501 5.") || strings.ContainsAny(err.Error(), "\r\n") {
				t.Errorf("error %q is no reply", err)
			}
			return
		}
		written := "FROM:<" + mailbox.String() + ">"
		for _, parameter := range parameters {
			written += " " + parameter.keyword
			if parameter.value != "" {
				written += "=" + parameter.value
			}
		}
		again, parametersAgain, err := parsePath(written, "FROM:")
		if err != nil || again != mailbox || len(parametersAgain) != len(parameters) {
			t.Errorf("%q gives %q %v; written as %q it gives %q %v, %v", argument, mailbox, parameters, written, again, parametersAgain, err)
		}
	})
}

// FuzzSession sends anything: the session must end, and every answer must be a reply.
func FuzzSession(f *testing.F) {
	for _, seed := range []string{
		"EHLO x\r\nMAIL FROM:<a@contoso.com>\r\nRCPT TO:<b@contoso.com>\r\nDATA\r\nx\r\n.\r\nQUIT\r\n",
		"EHLO x\r\nMAIL FROM:<a@contoso.com>\r\nRCPT TO:<b@contoso.com>\r\nBDAT 3\r\nabcBDAT 0 LAST\r\nRSET\r\n",
		"HELO x\r\nAUTH LOGIN\r\nSTARTTLS\r\nVRFY\r\nNOOP\r\nTURN\r\n",
		"BDAT 99999999999999999999\r\n", "BDAT -1\r\n", "EHLO x\nMAIL\r\n", "\x00\r\n\xff\r\n",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, input []byte) {
		server, err := New(open, Options{Discard: true})
		if err != nil {
			t.Fatal(err)
		}
		conn := &tape{in: bytes.NewReader(input)}
		server.ServeConn(conn)
		heard := conn.out.String()
		if !strings.HasSuffix(heard, "\r\n") {
			t.Errorf("%q does not end with CRLF", heard)
		}
		for line := range strings.SplitSeq(strings.TrimSuffix(heard, "\r\n"), "\r\n") {
			if len(line) < 4 || line[0] < '2' || line[0] > '5' || line[3] != ' ' && line[3] != '-' {
				t.Errorf("%q is no reply", line)
			}
		}
	})
}

// tape is a connection that says what it was given, then ends.
type tape struct {
	net.Conn
	in  io.Reader
	out bytes.Buffer
}

func (t *tape) Read(p []byte) (int, error)  { return t.in.Read(p) }
func (t *tape) Write(p []byte) (int, error) { return t.out.Write(p) }
func (t *tape) Close() error                { return nil }
func (t *tape) RemoteAddr() net.Addr        { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 4} }

// The stand-in must not agree with the appliance by sharing its code.
func TestImportsNothingOfTheAppliance(t *testing.T) {
	for _, pattern := range []string{"*.go", "../*.go"} {
		files, err := filepath.Glob(pattern)
		if err != nil || len(files) == 0 {
			t.Fatalf("%s: %v, %v", pattern, files, err)
		}
		for _, file := range files {
			parsed, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.ImportsOnly)
			if err != nil {
				t.Fatal(err)
			}
			for _, spec := range parsed.Imports {
				if strings.HasPrefix(spec.Path.Value, `"mailchute/appliance`) {
					t.Errorf("%s imports %s", file, spec.Path.Value)
				}
			}
		}
	}
}

func BenchmarkDotted(b *testing.B) {
	body := bytes.Repeat([]byte(strings.Repeat("x", 76)+"\r\n"), 4096)
	message := append(append([]byte("MAIL FROM:<a@contoso.com>\r\nRCPT TO:<b@contoso.com>\r\nDATA\r\n"), body...), ".\r\n"...)
	server, address, err := Start(open, Options{Discard: true})
	if err != nil {
		b.Fatal(err)
	}
	defer server.Close()
	conn, err := net.Dial("tcp", address)
	if err != nil {
		b.Fatal(err)
	}
	go io.Copy(io.Discard, conn)
	io.WriteString(conn, "EHLO x\r\n")
	b.SetBytes(int64(len(message)))
	for b.Loop() {
		conn.Write(message)
	}
	io.WriteString(conn, "QUIT\r\n")
	conn.Close()
}
