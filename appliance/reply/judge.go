package reply

import (
	"slices"
	"strconv"
	"strings"
)

// Judge tells what an answer means: by the table of the endpoints' own replies, then by what all servers share,
// then by the first digit and the stage (RFC 5321 section 4.2.1).
//
// A failure before MAIL is always the connector's, also a temporary one, because it hits every message. An
// answer with a refusal and an error is judged by the refusal.
func Judge(a Answer) Verdict {
	var verdict Verdict
	switch {
	case a.Err == nil && a.Reply.Positive():
		return Verdict{Class: Sent, Code: code(a.Reply), Fault: Nobody, Cause: "The endpoint has taken it.", Source: rfc5321}
	case a.Reply.Refused():
		verdict = judgeReply(a.Stage, a.Reply)
	case a.Err != nil:
		verdict = judgeError(a.Stage, a.Err)
	default:
		verdict = unexpected.verdict(code(a.Reply))
	}
	if a.Stage.BeforeMail() {
		verdict.Class = Connector
	}
	return verdict
}

func judgeReply(stage Stage, r Reply) Verdict {
	text := strings.ToLower(strings.Join(r.Lines, " "))
	meaning := byStage(stage, r)
	for _, table := range [][]row{endpoints, standards} {
		if at := slices.IndexFunc(table, func(row row) bool { return row.fits(stage, r, text) }); at >= 0 {
			meaning = table[at].meaning
			break
		}
	}
	verdict := meaning.verdict(code(r))
	// Only what the endpoint says for good about the account may lock it; a service in trouble does not.
	verdict.SignIn = r.Code == 535 && meaning.class != Temporary || stage == Auth && r.Code/100 == 5 && meaning.class != Temporary
	return verdict
}

func (row row) fits(stage Stage, r Reply, text string) bool {
	return (row.code == 0 || row.code == r.Code) &&
		(row.enhanced == "" || enhancedWithin(r.Enhanced, row.enhanced)) &&
		(row.text == "" || strings.Contains(text, row.text)) &&
		(len(row.stages) == 0 || slices.Contains(row.stages, stage))
}

// enhancedWithin tells whether "5.7.607" is "5.7.607" or lies in "5.7.606-649".
func enhancedWithin(enhanced, pattern string) bool {
	first, last, isRange := strings.Cut(pattern, "-")
	if !isRange {
		return enhanced == pattern
	}
	dot := strings.LastIndexByte(first, '.')
	detail, found := strings.CutPrefix(enhanced, first[:dot+1])
	if !found {
		return false
	}
	number, err := strconv.Atoi(detail)
	from, _ := strconv.Atoi(first[dot+1:])
	to, _ := strconv.Atoi(last)
	return err == nil && number >= from && number <= to
}

// byStage is the meaning of a refusal that no row knows. A sender is held, not given up, because a refused MAIL
// may be a setting of the account; a recipient or a message refused for good is refused for good.
func byStage(stage Stage, r Reply) meaning {
	switch {
	case stage == Auth:
		return meaning{Connector, Administrator,
			"The endpoint refused the sign-in.",
			"Check user name and password, and that the account may send by SMTP.", rfc4954}
	case stage.BeforeMail():
		return meaning{Connector, Cloud,
			"The endpoint refuses the connection before any mail is sent.",
			"Read the reply; check host, port and hostname; if it stays, ask the endpoint's operator.", rfc5321}
	case r.Code/100 == 4:
		return meaning{Temporary, Nobody,
			"The endpoint cannot take it now.",
			"Nothing: it is tried again.", rfc5321}
	case stage == Reset || stage == Quit:
		return unexpected
	case stage == Mail:
		return meaning{Sender, Administrator,
			"The endpoint refuses this sender.",
			"Read the reply; check the sender set on the device, and what the endpoint allows it.", rfc5321}
	case stage == Rcpt:
		return meaning{Permanent, Recipient,
			"The endpoint refuses this recipient.",
			"Read the reply; correct the address on the device.", rfc5321}
	default:
		return meaning{Permanent, Device,
			"The endpoint refuses the message.",
			"Read the reply; change what it objects to and send again.", rfc5321}
	}
}

// unexpected is a reply that does not belong where it came.
var unexpected = meaning{Temporary, Cloud,
	"The endpoint gave a reply that does not belong there.",
	"Nothing: it is tried again. If it stays, check that host and port are those of a mail server.", rfc5321}

func (m meaning) verdict(code string) Verdict {
	return Verdict{Class: m.class, Code: code, Fault: m.fault, Cause: m.cause, Fix: m.fix, Source: m.source}
}

func code(r Reply) string {
	text := strconv.Itoa(r.Code)
	if r.Enhanced != "" {
		text += " " + r.Enhanced
	}
	return text
}
