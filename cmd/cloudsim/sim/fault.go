package sim

import (
	"bufio"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
)

// Stage is a step of a conversation at which something can go wrong.
type Stage string

const (
	Connect  Stage = "connect"  // the connection has been accepted
	Banner   Stage = "banner"   // in place of the 220
	Hello    Stage = "hello"    // EHLO or HELO
	StartTLS Stage = "starttls" // the command
	TLS      Stage = "tls"      // the handshake
	Auth     Stage = "auth"
	Mail     Stage = "mail"
	Rcpt     Stage = "rcpt"
	Data     Stage = "data"  // the answer to DATA, or a BDAT command
	Body     Stage = "body"  // when the first piece of the body has come; a reply set here is early
	Final    Stage = "final" // the answer after the whole body
	Reset    Stage = "reset"
	Quit     Stage = "quit"
)

// Stages are all stages, in the order of a conversation.
var Stages = []Stage{Connect, Banner, Hello, StartTLS, TLS, Auth, Mail, Rcpt, Data, Body, Final, Reset, Quit}

// Action is what happens to the connection.
type Action string

const (
	Proceed   Action = ""           // the session goes on after the reply
	Close     Action = "close"      // closed at once, both ways
	Abort     Action = "reset"      // TCP RST
	Stall     Action = "stall"      // silence until the client goes; at Body the client's data is not read either
	HalfClose Action = "half-close" // no more is sent, what comes is read and dropped
	Garbage   Action = "garbage"    // bytes that are no reply, then close
	Alert     Action = "tls-alert"  // the handshake is refused with an alert as the hello comes
	Reject    Action = "tls-reject" // the handshake is refused with an alert after the client's certificate
)

var actions = []Action{Close, Abort, Stall, HalfClose, Garbage, Alert, Reject}

// Fault makes one stage go wrong.
type Fault struct {
	Stage  Stage
	Match  string // only if the command (from Data on: an address of the envelope) contains this; empty: always
	Reply  string // said in place of the proper reply, without line end; empty: nothing is
	Action Action // what follows
	Count  int    // how often; 0: for ever
}

// ParseFault reads STAGE[~MATCH]=WHAT[:COUNT], where WHAT is a reply, an action, or reply+action:
//
//	rcpt=stall
//	final=451:3                          three times 451, then well again
//	rcpt~nobody@=550 5.1.1 User unknown  only for recipients that contain nobody@
//	body=552+half-close                  an early reply
//	banner=refuse
//
// A reply is a code alone, a code with its text, 4xx, 5xx, or refuse for the usual one of the stage.
func ParseFault(text string) (Fault, error) {
	where, what, found := strings.Cut(text, "=")
	if !found {
		return Fault{}, fmt.Errorf("fault %q: no =; write STAGE=WHAT[:COUNT], for example rcpt=stall or final=451:3", text)
	}
	stage, match, _ := strings.Cut(where, "~")
	fault := Fault{Stage: Stage(stage), Match: match}
	if !slices.Contains(Stages, fault.Stage) {
		return Fault{}, fmt.Errorf("fault %q: unknown stage %q; the stages are %s", text, stage, list(Stages))
	}
	if i := strings.LastIndexByte(what, ':'); i >= 0 {
		if count, err := strconv.ParseUint(what[i+1:], 10, 31); err == nil {
			if count == 0 {
				return Fault{}, fmt.Errorf("fault %q: a count of 0; leave it away for a fault that stays", text)
			}
			fault.Count, what = int(count), what[:i]
		}
	}
	if i := strings.LastIndexByte(what, '+'); i >= 0 && slices.Contains(actions, Action(what[i+1:])) {
		fault.Action, what = Action(what[i+1:]), what[:i]
	} else if slices.Contains(actions, Action(what)) {
		fault.Action, what = Action(what), ""
	}
	if what != "" || fault.Action == Proceed {
		reply, err := usualReply(fault.Stage, what)
		if err != nil {
			return Fault{}, fmt.Errorf("fault %q: %w", text, err)
		}
		fault.Reply = reply
	}
	if fault.Stage == Connect && fault.Reply == "" && fault.Action == Proceed {
		fault.Action = Abort // refuse
	}
	return fault, fault.check(text)
}

func (f Fault) check(text string) error {
	switch {
	case f.Reply != "" && (f.Stage == Connect || f.Stage == TLS):
		return fmt.Errorf("fault %q: no reply can be given at stage %s; allowed are actions", text, f.Stage)
	case (f.Action == Alert || f.Action == Reject) && f.Stage != TLS:
		return fmt.Errorf("fault %q: %s belongs to stage tls", text, f.Action)
	}
	return nil
}

// ParseFaults reads a script: one fault a line; empty lines and those that begin with # say nothing.
func ParseFaults(script io.Reader) ([]Fault, error) {
	var faults []Fault
	lines := bufio.NewScanner(script)
	for number := 1; lines.Scan(); number++ {
		line := strings.TrimSpace(lines.Text())
		if line == "" || line[0] == '#' {
			continue
		}
		fault, err := ParseFault(line)
		if err != nil {
			return nil, fmt.Errorf("line %d: %w", number, err)
		}
		faults = append(faults, fault)
	}
	return faults, lines.Err()
}

// String is what ParseFault reads.
func (f Fault) String() string {
	text := string(f.Stage)
	if f.Match != "" {
		text += "~" + f.Match
	}
	text += "=" + f.Reply
	if f.Reply != "" && f.Action != Proceed {
		text += "+"
	}
	text += string(f.Action)
	if f.Count > 0 {
		text += ":" + strconv.Itoa(f.Count)
	}
	return text
}

// usual texts of replies given as a code alone.
var usual = map[string]string{
	"421": "4.3.2 Service not active",
	"432": "4.3.2 STOREDRV.ClientSubmit; sender thread limit exceeded",
	"450": "4.2.0 Mailbox temporarily unavailable",
	"451": "4.7.500 Server busy. Please try again later",
	"452": "4.3.1 Insufficient system resources",
	"454": "4.7.0 TLS not available due to temporary reason",
	"503": "5.5.1 Bad sequence of commands",
	"530": "5.7.57 Client not authenticated to send mail.",
	"535": "5.7.3 Authentication unsuccessful",
	"550": "5.7.1 Service unavailable",
	"552": "5.3.4 Message size exceeds fixed maximum message size",
	"554": "5.2.0 Transaction failed",
}

var refusals = map[Stage]string{
	Banner: "554 5.3.2 No SMTP service here",
	Auth:   "535 5.7.3 Authentication unsuccessful",
	Mail:   "550 5.1.8 Access denied, bad outbound sender",
	Rcpt:   "550 5.1.10 RESOLVER.ADR.RecipientNotFound; Recipient not found",
}

func usualReply(stage Stage, what string) (string, error) {
	switch what {
	case "refuse":
		if reply, ok := refusals[stage]; ok {
			return reply, nil
		}
		if stage == Connect {
			return "", nil
		}
		what = "554"
	case "4xx":
		what = "451"
	case "5xx":
		what = "550"
	}
	if len(what) < 3 || what[0] < '2' || what[0] > '5' || strings.Trim(what[:3], "0123456789") != "" ||
		len(what) > 3 && what[3] != ' ' || strings.ContainsAny(what, "\r\n") {
		return "", fmt.Errorf("found %q; allowed are a reply such as 451 or \"550 5.1.1 User unknown\", 4xx, 5xx, refuse, and %s", what, list(actions))
	}
	if len(what) > 3 {
		return what, nil
	}
	text, ok := usual[what]
	if !ok {
		text = what[:1] + ".0.0 A fault was set"
	}
	return what + " " + text, nil
}

func list[T ~string](values []T) string {
	words := make([]string, len(values))
	for i, value := range values {
		words[i] = string(value)
	}
	return strings.Join(words, ", ")
}
