package message

import (
	"bytes"
	"errors"
	"net/netip"

	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

const received = "Received: from scanner\r\n"

var roomy = Limits{Size: 1 << 20, Header: 1 << 16, Hops: 30}

// pass writes body in pieces of the given size through a Writer.
func pass(body string, piece int, limits Limits) (string, Summary, error) {
	var out bytes.Buffer
	w := NewWriter(&out, []byte(received), limits)
	for start := 0; start < len(body); start += piece {
		if _, err := w.Write([]byte(body[start:min(start+piece, len(body))])); err != nil {
			w.Close()
			return out.String(), w.Summary(), err
		}
	}
	err := w.Close()
	return out.String(), w.Summary(), err
}

func TestBody(t *testing.T) {
	for _, test := range []struct {
		name, in, out string // out: after the Received field
	}{
		{"untouched", "Subject: a\r\n\r\nhello\r\n", "Subject: a\r\n\r\nhello\r\n"},
		{"bare LF", "Subject: a\n\nhello\n", "Subject: a\r\n\r\nhello\r\n"},
		{"bare CR", "Subject: a\r\rhello\r", "Subject: a\r\n\r\nhello\r\n"},
		{"mixed", "Subject: a\r\n\nhel\rlo\r\n", "Subject: a\r\n\r\nhel\r\nlo\r\n"},
		{"CR CR LF", "Subject: a\r\n\r\nx\r\r\ny\r\n", "Subject: a\r\n\r\nx\r\n\r\ny\r\n"},
		{"LF CR", "Subject: a\r\n\r\nx\n\ry\r\n", "Subject: a\r\n\r\nx\r\n\r\ny\r\n"},
		{"last line open", "Subject: a\r\n\r\nhello", "Subject: a\r\n\r\nhello\r\n"},
		{"header alone", "Subject: a\r\n", "Subject: a\r\n"},
		{"header alone, open", "Subject: a", "Subject: a\r\n"},
		{"empty", "", ""},
		{"empty header", "\r\nhello\r\n", "\r\nhello\r\n"},
		{"no header", "hello\r\nworld\r\n", "\r\nhello\r\nworld\r\n"},
		{"no header, folded look", " hello\r\n", "\r\n hello\r\n"},
		{"header without empty line", "Subject: a\r\nhello there\r\n", "Subject: a\r\nhello there\r\n"},
		{"dots and NUL", "A: b\r\n\r\n.\r\n..\x00\r\n", "A: b\r\n\r\n.\r\n..\x00\r\n"},
	} {
		t.Run(test.name, func(t *testing.T) {
			for piece := 1; piece <= len(test.in)+1; piece++ {
				out, summary, err := pass(test.in, piece, roomy)
				if err != nil {
					t.Fatal(err)
				}
				if diff := cmp.Diff(received+test.out, out); diff != "" {
					t.Fatalf("in pieces of %d:\n%s", piece, diff)
				}
				if summary.Size != int64(len(out)) {
					t.Errorf("Size %d, written were %d", summary.Size, len(out))
				}
			}
		})
	}
}

func TestSummary(t *testing.T) {
	long := strings.Repeat("x", 5000)
	for _, test := range []struct {
		name, in string
		want     Summary
	}{
		{"plain", "Subject: Scan 12\r\nMessage-ID: <1@scanner>\r\n\r\nbody\r\n",
			Summary{Subject: "Scan 12", MessageID: "<1@scanner>"}},
		{"any case, any place", "message-id:<1@s>\r\nsubject :a\r\n", Summary{Subject: "a", MessageID: "<1@s>"}},
		{"the first counts", "Subject: a\r\nSubject: b\r\n", Summary{Subject: "a"}},
		{"an empty one counts", "Subject:\r\nSubject: b\r\n", Summary{}},
		{"not in the body", "A: b\r\n\r\nSubject: a\r\nReceived: x\r\n", Summary{}},
		{"folded", "Subject: a\r\n\tb\r\n c\r\n", Summary{Subject: "ab c"}},
		{"encoded", "Subject: =?utf-8?B?w6RiYw==?= =?iso-8859-1?Q?=FC?=\r\n", Summary{Subject: "äbcü"}},
		{"encoded over lines", "Subject: =?utf-8?Q?Z=C3=A4?=\r\n =?utf-8?Q?hler?=\r\n", Summary{Subject: "Zähler"}},
		{"unknown character set stays", "Subject: =?shift_jis?B?g1g=?=\r\n", Summary{Subject: "=?shift_jis?B?g1g=?="}},
		{"no terminal escapes", "Subject: =?utf-8?Q?a=1B[2Jb=0D=0Ac?=\r\n", Summary{Subject: "a[2Jbc"}},
		{"no turned text", "Subject: =?utf-8?B?" + "YeKArmI=" + "?=\r\n", Summary{Subject: "ab"}},
		{"raw bytes", "Subject: a\xe4b\r\n", Summary{Subject: "a\uFFFDb", EightBit: true, EightBitHeader: true}},
		{"cut between characters", "Subject: " + strings.Repeat("€", 100) + "\r\n",
			Summary{Subject: strings.Repeat("€", 66), EightBit: true, EightBitHeader: true}},
		{"long lines", "Subject: " + long + "\r\nX: " + long + "\r\nReceived: " + long + "\r\nMessage-ID: <" + long + ">\r\n",
			Summary{Subject: long[:200], MessageID: "<" + long[:249], Hops: 1}},
		{"a long line says no field within", "X: " + strings.Repeat("Received: a ", 500) + "\r\n", Summary{}},
		{"hops", "Received: a\r\nreceived: b\r\n by c\r\nReceived-SPF: d\r\n", Summary{Hops: 2}},
		{"8-bit body", "A: b\r\n\r\n" + long + "\xff\r\n", Summary{EightBit: true}},
		{"8-bit first line of a body without header", "\xff\r\n", Summary{EightBit: true}},
		{"8-bit last byte", "A: b\r\n\r\n" + long + "\x80", Summary{EightBit: true}},
		{"7-bit", "A: b\r\n\r\n" + long + "\x7f\r\n", Summary{}},
	} {
		t.Run(test.name, func(t *testing.T) {
			for _, piece := range []int{1, 2, 3, 7, 1023, 1024, 1025, 1 << 20} {
				_, got, err := pass(test.in, piece, roomy)
				if err != nil {
					t.Fatal(err)
				}
				got.Size = 0
				if diff := cmp.Diff(test.want, got); diff != "" {
					t.Fatalf("in pieces of %d:\n%s", piece, diff)
				}
			}
		})
	}
}

func TestLimits(t *testing.T) {
	header := "A: b\r\n\r\n"
	hops := func(n int) string { return strings.Repeat("Received: x\r\n", n) + "\r\nbody\r\n" }
	for _, test := range []struct {
		name, in string
		limits   Limits
		want     error
	}{
		{"exactly the size", header + "12345\r\n", Limits{Size: 15, Header: 100, Hops: 1}, nil},
		{"one more", header + "123456\r\n", Limits{Size: 15, Header: 100, Hops: 1}, ErrTooLarge},
		{"the size counts before line ends are made CRLF", "A: b\n\n1234567\n\n", Limits{Size: 15, Header: 100, Hops: 1}, nil},
		{"exactly the header", header + "12345\r\n", Limits{Size: 99, Header: 8, Hops: 1}, nil},
		{"header too large", "A: bc\r\n\r\n", Limits{Size: 99, Header: 8, Hops: 1}, ErrHeaderTooLarge},
		{"one endless header line", "A: " + strings.Repeat("b", 5000), Limits{Size: 9999, Header: 4000, Hops: 1}, ErrHeaderTooLarge},
		{"a body without header is none", strings.Repeat("b", 5000), Limits{Size: 9999, Header: 4000, Hops: 1}, nil},
		{"30 hops", hops(30), roomy, nil},
		{"31 hops", hops(31), roomy, ErrLoop},
	} {
		t.Run(test.name, func(t *testing.T) {
			for _, piece := range []int{1, 13, 1 << 20} {
				if _, _, err := pass(test.in, piece, test.limits); !errors.Is(err, test.want) {
					t.Errorf("in pieces of %d: %v, want %v", piece, err, test.want)
				}
			}
		})
	}
}

// After a failure below, nothing more is written.
func TestFailureBelow(t *testing.T) {
	full := errors.New("full")
	below := &failing{err: full}
	w := NewWriter(below, []byte(received), roomy)
	if _, err := w.Write([]byte("A: b\r\n\r\n")); !errors.Is(err, full) {
		t.Errorf("Write: %v, want %v", err, full)
	}
	calls := below.calls
	w.Write([]byte("more"))
	if err := w.Close(); !errors.Is(err, full) {
		t.Errorf("Close: %v, want %v", err, full)
	}
	if below.calls != calls {
		t.Errorf("%d writes after the failure", below.calls-calls)
	}
}

type failing struct {
	err   error
	calls int
}

func (f *failing) Write([]byte) (int, error) {
	f.calls++
	return 0, f.err
}

// However a message is cut into writes, the outcome is the same, and it is what the plain rules say.
func TestCuttingDoesNotMatter(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		parts := rapid.SliceOf(rapid.SampledFrom([]string{"\r", "\n", "\r\n", ".", "A: b", "Subject: ", "x", " ", "\xff", ":"})).Draw(t, "parts")
		body := strings.Join(parts, "")
		piece := rapid.IntRange(1, 8).Draw(t, "piece")
		checkWriter(t, body, piece)
	})
}

type fataler interface{ Fatalf(string, ...any) }

func checkWriter(t fataler, body string, piece int) {
	limits := Limits{Size: 1 << 30, Header: 1 << 30, Hops: 1 << 30}
	out, cut, _ := pass(body, piece, limits)
	whole, summary, _ := pass(body, len(body)+1, limits)
	if out != whole || cut != summary {
		t.Fatalf("%q in pieces of %d: %q %+v, whole: %q %+v", body, piece, out, cut, whole, summary)
	}
	rest, found := strings.CutPrefix(out, received)
	if !found {
		t.Fatalf("%q does not begin with the Received field", out)
	}
	want := strings.ReplaceAll(strings.ReplaceAll(strings.ReplaceAll(body, "\r\n", "\n"), "\r", "\n"), "\n", "\r\n")
	if want != "" && !strings.HasSuffix(want, "\r\n") {
		want += "\r\n"
	}
	if rest != want && rest != "\r\n"+want {
		t.Fatalf("%q became %q, want %q", body, rest, want)
	}
	if len(summary.Subject) > maxSubject || strings.ContainsAny(summary.Subject+summary.MessageID, "\r\n\x1b\x00") {
		t.Fatalf("subject %q, message id %q", summary.Subject, summary.MessageID)
	}
	eightBit := strings.IndexFunc(body, func(r rune) bool { return r > 127 }) >= 0
	if summary.EightBit != eightBit || summary.EightBitHeader && !eightBit || summary.Size != int64(len(out)) {
		t.Fatalf("%q: %+v", body, summary)
	}
}

func FuzzWriter(f *testing.F) {
	f.Add("Subject: a\r\n\r\nbody\r\n", 3)
	f.Add("no header\nat all\r", 1)
	f.Add("Subject: =?utf-8?Q?Z=C3=A4?=\r\n =?utf-8?B?aGxlcg==?=\r\nReceived: x\r\n\r\n", 7)
	f.Add("Message-ID: \xff\x1b\r\n\r\n", 2)
	f.Add("A"+strings.Repeat("x", 1100)+": b\r\n", 1024)
	f.Fuzz(func(t *testing.T, body string, piece int) {
		checkWriter(t, body, 1+piece&0x7ff)
	})
}

func TestReceived(t *testing.T) {
	at := time.Date(2026, 3, 4, 5, 6, 7, 0, time.FixedZone("", 3600))
	base := Received{Helo: "mfp-2", Client: netip.MustParseAddr("192.168.1.40"), Hostname: "relay.contoso.com",
		ID: "1HJ0000000A", Extended: true, Time: at}
	const end = " id 1HJ0000000A;\r\n\tWed, 04 Mar 2026 05:06:07 +0100\r\n"
	for _, test := range []struct {
		name   string
		change func(*Received)
		want   string
	}{
		{"ESMTP", func(r *Received) {}, "Received: from mfp-2 ([192.168.1.40])\r\n\tby relay.contoso.com with ESMTP" + end},
		{"HELO", func(r *Received) { r.Extended = false }, "Received: from mfp-2 ([192.168.1.40])\r\n\tby relay.contoso.com with SMTP" + end},
		{"TLS", func(r *Received) { r.TLS = "TLS1.3 TLS_AES_128_GCM_SHA256" },
			"Received: from mfp-2 ([192.168.1.40])\r\n\tby relay.contoso.com with ESMTPS (TLS1.3 TLS_AES_128_GCM_SHA256)" + end},
		{"UTF-8", func(r *Received) { r.UTF8 = true }, "Received: from mfp-2 ([192.168.1.40])\r\n\tby relay.contoso.com with UTF8SMTP" + end},
		{"UTF-8 over TLS", func(r *Received) { r.UTF8, r.TLS = true, "TLS1.2" },
			"Received: from mfp-2 ([192.168.1.40])\r\n\tby relay.contoso.com with UTF8SMTPS (TLS1.2)" + end},
		{"IPv6", func(r *Received) { r.Client = netip.MustParseAddr("fd00::5") },
			"Received: from mfp-2 ([IPv6:fd00::5])\r\n\tby relay.contoso.com with ESMTP" + end},
		{"a literal as name", func(r *Received) { r.Helo = "[192.168.1.40]" },
			"Received: from [192.168.1.40] (helo=[192.168.1.40])\r\n\tby relay.contoso.com with ESMTP" + end},
		{"injection", func(r *Received) { r.Helo = "a) by\r\nX: (b\\ü" },
			"Received: from [192.168.1.40] (helo=a? by??X: ?b???)\r\n\tby relay.contoso.com with ESMTP" + end},
	} {
		t.Run(test.name, func(t *testing.T) {
			r := base
			test.change(&r)
			if diff := cmp.Diff(test.want, string(r.Append(nil))); diff != "" {
				t.Error(diff)
			}
		})
	}
}

type discard struct{}

func (discard) Write(p []byte) (int, error) { return len(p), nil }

func BenchmarkWriter(b *testing.B) {
	header := "Subject: a scan\r\nFrom: mfp@contoso.com\r\nTo: a@contoso.com\r\nMIME-Version: 1.0\r\n\r\n"
	body := []byte(header + strings.Repeat(strings.Repeat("QUJD", 19)+"\r\n", 1<<16))
	limits := Limits{Size: 1 << 30, Header: 1 << 20, Hops: 30}
	b.SetBytes(int64(len(body)))
	for b.Loop() {
		w := NewWriter(discard{}, []byte(received), limits)
		for rest := body; len(rest) > 0; {
			n := min(len(rest), 64<<10)
			w.Write(rest[:n])
			rest = rest[n:]
		}
		if err := w.Close(); err != nil {
			b.Fatal(err)
		}
	}
}
