package reply

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"testing/iotest"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
)

func TestRead(t *testing.T) {
	for _, test := range []struct {
		name, said string
		want       Reply
	}{
		{"one line", "250 2.1.0 Sender OK\r\n", Reply{250, "2.1.0", []string{"Sender OK"}}},
		{"several lines", "250-mx.contoso.com Hello\r\n250-SIZE 157286400\r\n250 SMTPUTF8\r\n",
			Reply{250, "", []string{"mx.contoso.com Hello", "SIZE 157286400", "SMTPUTF8"}}},
		{"the enhanced code stands in every line", "550-5.7.64 TenantAttribution;\r\n550 5.7.64 Relay Access Denied\r\n",
			Reply{550, "5.7.64", []string{"TenantAttribution;", "Relay Access Denied"}}},
		{"the enhanced code stands in the last line only", "550-Sorry:\r\n550 5.1.1 who?\r\n", Reply{550, "5.1.1", []string{"Sorry:", "who?"}}},
		{"no text", "250\r\n", Reply{250, "", []string{""}}},
		{"no text but a space", "354 \r\n", Reply{354, "", []string{""}}},
		{"nothing but an enhanced code", "250 2.0.0\r\n", Reply{250, "2.0.0", []string{""}}},
		{"a bare LF", "250-one\n250 two\n", Reply{250, "", []string{"one", "two"}}},
		{"a number that is no enhanced code", "220 2.0.0.1 ready\r\n", Reply{220, "", []string{"2.0.0.1 ready"}}},
		{"too long a number", "550 5.7.1234 no\r\n", Reply{550, "", []string{"5.7.1234 no"}}},
		{"an enhanced code of another class is the server's word", "550 4.4.7 expired\r\n", Reply{550, "4.4.7", []string{"expired"}}},
		{"three digits of detail", "554 5.2.252 SendAsDenied; a not allowed\r\n", Reply{554, "5.2.252", []string{"SendAsDenied; a not allowed"}}},
		{"control characters and bytes that are not UTF-8", "550 a\x1b[31mb\x00\xff\r\n", Reply{550, "", []string{"a?[31mb?\uFFFD"}}},
		{"UTF-8", "550 Zugriff für Ünbekannte\r\n", Reply{550, "", []string{"Zugriff für Ünbekannte"}}},
		{"a long line", "250 " + strings.Repeat("x", maxLine-6) + "\r\n", Reply{250, "", []string{strings.Repeat("x", maxLine-6)}}},
		{"many lines", strings.Repeat("250-x\r\n", maxLines-1) + "250 x\r\n", Reply{250, "", strings.Split(strings.Repeat("x,", maxLines-1)+"x", ",")}},
	} {
		t.Run(test.name, func(t *testing.T) {
			const next = "250 the next reply\r\n"
			for name, reader := range map[string]io.Reader{
				"at once":      strings.NewReader(test.said + next),
				"byte by byte": iotest.OneByteReader(strings.NewReader(test.said + next)),
			} {
				r := bufio.NewReaderSize(reader, 16) // smaller than a line
				got, err := Read(r)
				if err != nil {
					t.Fatal(name, err)
				}
				if diff := cmp.Diff(test.want, got); diff != "" {
					t.Error(name, "-want +got", diff)
				}
				if rest, _ := io.ReadAll(r); string(rest) != next {
					t.Errorf("%s: %q is left, want the next reply", name, rest)
				}
			}
		})
	}
}

func TestReadRefuses(t *testing.T) {
	for _, test := range []struct{ name, said, problem string }{
		{"garbage", "HTTP/1.1 400 Bad Request\r\n", "a reply begins with three digits"},
		{"an empty line", "\r\n", "a reply begins with three digits"},
		{"two digits", "25 ok\r\n", "a reply begins with three digits"},
		{"a code that cannot be", "150 ok\r\n", "a reply begins with three digits"},
		{"something stuck to the code", "2500 ok\r\n", "after the code comes"},
		{"another code in the next line", "250-one\r\n550 two\r\n", "every line of a reply has the same code"},
		{"an endless line", "250 " + strings.Repeat("x", maxLine) + "\r\n", "a line may have 2048 octets"},
		{"a line without an end", strings.Repeat("x", 1<<20), "a line may have 2048 octets"},
		{"too many lines", strings.Repeat("250-x\r\n", maxLines) + "250 x\r\n", "a reply may have 128 lines"},
		{"too many octets", strings.Repeat("250-"+strings.Repeat("x", 2000)+"\r\n", 17) + "250 x\r\n", "and 32768 octets"},
	} {
		t.Run(test.name, func(t *testing.T) {
			_, err := Read(bufio.NewReader(strings.NewReader(test.said)))
			var syntax *SyntaxError
			if !errors.As(err, &syntax) || !strings.Contains(err.Error(), test.problem) || len(syntax.Found) > 100 {
				t.Errorf("%q was expected: %v", test.problem, err)
			}
		})
	}
}

// TestReadEnds: a connection that ends between replies, within one, or with another error.
func TestReadEnds(t *testing.T) {
	broken := errors.New("connection reset by peer")
	for _, test := range []struct {
		said string
		then error
		want Reply
		err  error
	}{
		{"", io.EOF, Reply{}, io.EOF},
		{"25", io.EOF, Reply{}, io.ErrUnexpectedEOF},
		{"421-4.3.2 Closing\r\n", io.EOF, Reply{421, "4.3.2", []string{"Closing"}}, io.ErrUnexpectedEOF},
		{"421-4.3.2 Closing\r\n421 so", broken, Reply{421, "4.3.2", []string{"Closing"}}, broken},
	} {
		got, err := Read(bufio.NewReader(io.MultiReader(strings.NewReader(test.said), iotest.ErrReader(test.then))))
		if err != test.err {
			t.Errorf("%q: %v, want %v", test.said, err, test.err)
		}
		if diff := cmp.Diff(test.want, got); diff != "" {
			t.Error("-want +got", diff)
		}
	}
}

func TestString(t *testing.T) {
	failed := errors.New("read: connection reset by peer")
	for want, answer := range map[string]Answer{
		"550 5.7.64 TenantAttribution; Relay Access Denied": {Reply: Reply{550, "5.7.64", []string{"TenantAttribution;", "Relay Access Denied"}}},
		"250":                            {Reply: Reply{250, "", []string{""}}},
		"":                               {},
		"read: connection reset by peer": {Err: failed},
		"421 4.3.2 Closing (read: connection reset by peer)": {Reply: Reply{421, "4.3.2", []string{"Closing"}}, Err: failed},
	} {
		if got := answer.String(); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}

// FuzzRead: anything a server sends is a reply within the limits or an error, a reply is printable on one line, and
// reading it again from what it prints changes nothing.
func FuzzRead(f *testing.F) {
	for _, seed := range []string{"250 ok\r\n", "250-a\r\n250 b\r\n", "550 5.7.64 x\n", "250\r\n", "421-", "garbage", "250-a\r\n550 b\r\n", "550 \xff\x00\r\n", "250 2.0.0\r\n"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, said string) {
		r, err := Read(bufio.NewReader(strings.NewReader(said)))
		if r.Code != 0 && (r.Code < 200 || r.Code > 599) {
			t.Fatalf("code %d", r.Code)
		}
		if len(r.Lines) > maxLines {
			t.Fatalf("%d lines", len(r.Lines))
		}
		text := r.String()
		if strings.ContainsAny(text, "\r\n\x00\x1b") || !utf8.ValidString(text) {
			t.Fatalf("not printable: %q", text)
		}
		if err != nil || len(r.Lines) > 1 {
			return
		}
		again, err := Read(bufio.NewReader(strings.NewReader(text + "\r\n")))
		if len(text) < maxLine-2 && (err != nil || again.Code != r.Code || !strings.HasSuffix(again.String(), text)) {
			t.Fatalf("%q becomes %q (%v)", text, again, err)
		}
		for _, stage := range []Stage{Banner, Auth, Mail, Rcpt, Data, Final, Reset} {
			verdict := Judge(Answer{Stage: stage, Reply: r})
			if verdict.Class == "" || verdict.Cause == "" || verdict.Source == "" || verdict.Fault == "" || !strings.HasPrefix(verdict.Code, fmt.Sprint(r.Code)) {
				t.Fatalf("%q at %s: %+v", text, stage, verdict)
			}
			if verdict.Class == Sent != r.Positive() {
				t.Fatalf("%q at %s counts as %s", text, stage, verdict.Class)
			}
		}
	})
}
