package main

import (
	"fmt"
	"net/netip"
	"strings"
	"time"

	"mailchute/appliance/api"
	"mailchute/appliance/api/apitest"
	"mailchute/appliance/config"
	"mailchute/appliance/spool"
	"mailchute/appliance/trace"
)

// boxes are the boxes of the scripts, by name.
var boxes = map[string]func() *apitest.Box{
	"idle":   idle,
	"office": office,
	"troubled": func() *apitest.Box {
		box := office()
		trouble(box)
		return box
	},
	"crowded": crowded,
	"misconfigured": func() *apitest.Box {
		box := office()
		_, box.Faults = config.Parse("config.toml", []byte("version = 1\nhostname = \"relay.contoso.com\"\naccepted_domains = [\"contoso.com\"]\nretry = 1\n"))
		return box
	},
	"failing": func() *apitest.Box {
		box := office()
		box.Err = fmt.Errorf("message %s: %w", box.Envelopes[0].ID, spool.ErrBusy)
		return box
	},
	"sending": func() *apitest.Box {
		return sending(trace.Sent, trace.Event{Kind: trace.Delivered, Reply: "250 2.6.0 Queued"})
	},
	"refusing": refusing,
	"deferring": func() *apitest.Box {
		return sending(trace.Waiting, trace.Event{Kind: trace.Deferred, Reply: "451 4.7.500 Server busy", Next: noon.Add(time.Minute)})
	},
	"holding": func() *apitest.Box {
		box := sending(trace.Waiting, trace.Event{Kind: trace.Deferred, Reply: "550 5.7.64 TenantAttribution; Relay Access Denied"})
		trouble(box)
		box.State.Connectors[0].Tried = at("10:00:01") // by the test message
		return box
	},
	"probing": probing,
	"mended":  mended,
	"held by hand": func() *apitest.Box {
		box := sending(trace.Waiting, trace.Event{Kind: trace.Held, Text: "by anna"})
		handed := box.Handed
		box.Handed = func(b *apitest.Box, id trace.ID) {
			handed(b, id)
			b.Envelopes[len(b.Envelopes)-1].Hold = &spool.Hold{By: "anna", Since: noon, Why: "we move house"}
		}
		return box
	},
}

func at(clock string) time.Time {
	parsed, err := time.Parse("2006-01-02 15:04:05", "2026-03-02 "+clock)
	if err != nil {
		panic(err)
	}
	return parsed
}

func idle() *apitest.Box {
	return &apitest.Box{State: api.Status{
		Version: "1.2.3", Hostname: "relay.contoso.com", Started: at("11:59:30"), Applied: at("11:59:30"), Flowing: true,
		Listeners: []api.Listener{{Address: "[::]:25", TLS: "starttls"}}, MaxConnections: 500,
		Disk:       api.Disk{Path: "/var/lib/mailchute", Size: 250e9, Free: 120e9, Limit: 125e9},
		Connectors: []api.Connector{{Name: "m365", Host: "contoso-com.mail.protection.outlook.com:25", State: api.ConnectorOK}},
	}}
}

func message(clock, device, from, to string, bytes int64) spool.Envelope {
	accepted := at(clock)
	return spool.Envelope{Record: trace.Record{
		ID: trace.IDAt(accepted), Accepted: accepted, Device: device, Client: "192.168.1.40", Listener: "[::]:25", Helo: "RNP5838791A2B3C",
		Sender: from, Subject: "Scan 0042", MessageID: "<0042@scanner.local>", Size: bytes,
		Recipients: []trace.Recipient{{Address: to, State: trace.Waiting, Connector: "m365"}},
		Events:     []trace.Event{{Time: accepted, Kind: trace.Accepted}},
	}}
}

const endpoint = "contoso-com.mail.protection.outlook.com [192.0.2.25]:25, TLS 1.3"

// office is a box in use: a message that waits, one that is held and one that has failed for one of two; a sent one in the
// trace, from a device that writes what it should not; and two strangers.
func office() *apitest.Box {
	box := idle()
	waiting := message("10:00:00", "Floor 2", "scanner@contoso.com", "anna@contoso.com", 1234567)
	waiting.Events = append(waiting.Events,
		trace.Event{Time: at("10:00:01"), Kind: trace.Attempted, Connector: "m365", Next: at("10:01:01")},
		trace.Event{Time: at("10:00:02"), Kind: trace.Deferred, Connector: "m365", Peer: endpoint, Class: "temporary", Reply: "451 4.7.500 Server busy.\nPlease try again later.", Next: at("12:05:00")})
	waiting.Legs = []spool.Leg{{Connector: "m365", Attempts: 1, Next: at("12:05:00")}}

	held := message("10:30:00", "Floor 3", "scanner3@contoso.com", "bert@contoso.com", 1000)
	held.TLS = "TLS 1.2 TLS_RSA_WITH_AES_128_CBC_SHA"
	held.Hold = &spool.Hold{By: "anna", Since: at("11:00:00"), Why: "a test page"}
	held.Legs = []spool.Leg{{Connector: "m365", Next: at("10:30:00")}}

	failed := message("11:00:00", "Floor 2", "", "carl@contoso.com", 4096)
	failed.Recipients = append(failed.Recipients, trace.Recipient{Address: "nobody@contoso.com", State: trace.Failed, Connector: "m365",
		Reply: "550 5.1.10 RESOLVER.ADR.RecipientNotFound; Recipient not found", Cause: "There is no mailbox with this address.",
		Fix: "Correct the address in the scanner's address book."})
	failed.Recipients[0].State = trace.Sent
	failed.Events = append(failed.Events, trace.Event{Time: at("11:00:01"), Kind: trace.Refused, Connector: "m365", Peer: endpoint,
		Recipients: []string{"nobody@contoso.com"}, Class: "permanent", Reply: "550 5.1.10 RESOLVER.ADR.RecipientNotFound; Recipient not found"})

	sent := message("09:00:00", "Floor 1", "scanner1@contoso.com", "dora@contoso.com", 20_000_000).Record
	sent.Accepted = sent.Accepted.AddDate(0, 0, -1)
	sent.ID = trace.IDAt(sent.Accepted)
	sent.Subject = "\x1b[2J \u202efdp.exe\nforged line"
	sent.Recipients[0].State = trace.Sent
	sent.Skipped = 3
	for range trace.FirstEvents {
		sent.Events = append(sent.Events, trace.Event{Time: at("09:00:01"), Kind: trace.Attempted, Connector: "m365"})
	}
	sent.Done = at("09:00:02")

	box.Envelopes = []spool.Envelope{waiting, held, failed}
	box.Bodies = map[trace.ID]string{held.ID: strings.Repeat("Subject: Scan\r\n\r\nHello.\r\n", 40)}
	box.Records = []trace.Record{sent}
	box.Refused = []trace.Stranger{
		{Address: netip.MustParseAddr("192.168.7.9"), First: at("08:00:00").AddDate(0, 0, -3), Last: at("11:58:00"), Count: 17, Sender: "new@contoso.com", Reason: "no device entry covers it"},
		{Address: netip.MustParseAddr("2001:db8::7"), First: at("11:00:00"), Last: at("11:00:00"), Count: 1, Recipient: "x@example.com", Reason: "no device entry covers it"},
	}
	box.State.Queue = api.QueueStatus{Messages: 3, Bytes: 1239662, Waiting: 1, Held: 1, Failed: 1, Oldest: at("10:00:00")}
	box.State.Disk.Used = 1239662
	box.State.Connections = 2
	box.State.Strangers = 2
	box.State.Counted = api.Counted{Accepted: 4, Sent: 2, Deferred: 1, Failed: 1}
	box.State.Connectors[0].Waiting = 1
	box.State.Connectors[0].LastSent = at("11:00:01")
	box.State.Certificates = []api.Certificate{
		{Name: "relay", Used: "connector m365", Subject: "relay.contoso.com", Expires: at("12:00:00").AddDate(0, 0, 20)},
		{Name: "listener", Used: "devices", Subject: "relay.contoso.com", Expires: at("11:59:00")},
	}
	box.Document = "version = 1\n"
	return box
}

// trouble puts the connector and a sender on hold.
func trouble(box *apitest.Box) {
	reply := "550 5.7.64 TenantAttribution; Relay Access Denied"
	cause := "Exchange Online does not know this box: the certificate's name is not that of an inbound connector."
	fix := "In the Exchange admin centre, check the inbound connector of type \"Your organization's email server\"."
	box.State.Flowing = false
	box.State.Connectors[0] = api.Connector{Name: "m365", Host: "contoso-com.mail.protection.outlook.com:25", State: api.ConnectorHeld,
		Since: at("10:00:00"), Reply: reply, Cause: cause, Fix: fix, Probe: at("12:04:00"), Waiting: 1}
	box.State.Problems = []api.Problem{{What: "Connector m365 is on hold: " + cause, Fix: fix}}
	box.State.HeldSenders = []api.HeldSender{{Connector: "m365", Sender: "scanner3@contoso.com", Since: at("11:30:00"), Messages: 1,
		Reply: "550 5.7.60 SMTP; Client does not have permissions to send as this sender", Probe: at("12:30:00")}}
	box.State.Listeners = append(box.State.Listeners, api.Listener{Address: ":465", TLS: "implicit", Error: "address already in use"})
}

// crowded is a box with more messages than a page holds.
func crowded() *apitest.Box {
	box := idle()
	for minute := range 5 {
		envelope := message(fmt.Sprintf("10:%02d:00", minute), "Floor 1", "scanner@contoso.com", "anna@contoso.com", 1000)
		for i := range minute {
			envelope.Recipients = append(envelope.Recipients, trace.Recipient{Address: fmt.Sprintf("user%d@contoso.com", i), State: trace.Deleted})
		}
		box.Envelopes = append(box.Envelopes, envelope)
	}
	return box
}

// sending is a box that has made one attempt at a test message by the time anybody asks.
func sending(state trace.State, event trace.Event) *apitest.Box {
	box := idle()
	box.Handed = func(b *apitest.Box, id trace.ID) {
		envelope := &b.Envelopes[len(b.Envelopes)-1]
		envelope.Recipients[0].State = state
		event.Time, event.Connector, event.Peer = at("10:00:01"), "m365", endpoint
		envelope.Events = append(envelope.Events, trace.Event{Time: at("10:00:00"), Kind: trace.Attempted, Connector: "m365"}, event)
	}
	return box
}

// probing is a box whose connector was on hold before the test message, which has no answer yet.
func probing() *apitest.Box {
	box := sending(trace.Waiting, trace.Event{Kind: trace.Attempted})
	trouble(box)
	box.State.Connectors[0].Tried = at("09:59:59")
	return box
}

// mended is one where the message is taken by the second time anybody asks.
func mended() *apitest.Box {
	box := probing()
	asked := 0
	box.Asked = func(b *apitest.Box) {
		if asked++; asked == 2 {
			b.Envelopes[len(b.Envelopes)-1].Recipients[0].State = trace.Sent
		}
	}
	return box
}

func refusing() *apitest.Box {
	reply := "550 5.1.10 RESOLVER.ADR.RecipientNotFound; Recipient not found"
	box := sending(trace.Failed, trace.Event{Kind: trace.Refused, Reply: reply})
	handed := box.Handed
	box.Handed = func(b *apitest.Box, id trace.ID) {
		handed(b, id)
		recipient := &b.Envelopes[len(b.Envelopes)-1].Recipients[0]
		recipient.Reply, recipient.Cause, recipient.Fix = reply, "There is no mailbox with this address.", "Correct the address."
	}
	return box
}
