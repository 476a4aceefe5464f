package reply

// row is one line of the table: what an answer looks like, and what it means. The first row that fits decides.
type row struct {
	code     int     // 0: any
	enhanced string  // "5.7.64", or a range of the detail: "5.7.606-649"; empty: any or none
	text     string  // lower case, anywhere in the reply's text; empty: any
	stages   []Stage // empty: any
	meaning
}

// meaning is the half of a row that goes into the verdict.
type meaning struct {
	class  Class
	fault  Fault
	cause  string
	fix    string
	source string
}

// Where the rows come from.
const (
	ndrTable       = "Microsoft, NDR error codes in Exchange Online (346b0950)"
	printers       = "Microsoft, Fix issues with printers (b03c8782)"
	submission     = "Microsoft, SMTP submission improvements (2024-01-24)"
	relayDenied    = "Microsoft, Relay access denied ATTR36 (2024-01-24)"
	tenantBlocked  = "Microsoft, NDR 5.7.703 to 5.7.750 (2026-10-02)"
	powershell     = "Microsoft, Exchange PowerShell reference (2026-08-21)"
	oauthGuide     = "Microsoft, OAuth for IMAP, POP and SMTP (8c19404c)"
	teamBlogTLS    = "Exchange Team blog 2659652"
	teamBlogBasic  = "Exchange Team blog 4114750"
	teamBlogDirect = "Exchange Team blog 4408790"
	teamBlogTERRL  = "Exchange Team blog 4372797"
	googleHelp     = "Google Workspace help, SMTP relay service"
	transcript     = "recorded transcript"
	postfixSource  = "Postfix 3.7, smtpd with smtpd_tls_req_ccert"
	secondHand     = "second-hand report"
	rfc5321        = "RFC 5321 section 4.2"
	rfc5321Timeout = "RFC 5321 section 4.5.3.2"
	rfc3463        = "RFC 3463"
	rfc4954        = "RFC 4954 section 6"
	rfc7504        = "RFC 7504"
	rfc8446        = "RFC 8446 section 6"
	rfc5280        = "RFC 5280 section 6"
)

// Texts that several rows share.
const (
	useOtherIdentity = "Use a connector with a certificate instead of an account, or let an administrator of the tenant allow this sign-in."
	waitDaily        = "Wait until the day is over, or release the mail then; send less, or ask for a higher limit."
	sendOverIPv4     = `Set ip = "4" on the connector.`
	backsOff         = "Nothing: it is tried again. If it stays, relay by a connector, which the service does not throttle so."
)

// endpoints are the replies of the cloud endpoints, each as it was documented or recorded. A row with a text
// stands before the one without.
var endpoints = []row{
	// TLS and sign-in
	{421, "4.7.66", "", nil, meaning{Connector, Administrator,
		"The endpoint does not take TLS 1.0 and 1.1.",
		"Let nothing between box and endpoint change the connection (a firewall that inspects TLS): the box itself speaks TLS 1.2 and 1.3.",
		teamBlogTLS}},
	{0, "5.7.57", "", nil, meaning{Connector, Administrator,
		"The endpoint wants a sign-in before it takes mail.",
		"Set username and password_file on the connector, or use the tenant's MX host with a certificate.",
		printers}},
	{535, "5.7.139", "smtpclientauthentication is disabled", nil, meaning{Connector, Administrator,
		"SMTP AUTH is switched off for the tenant or the mailbox.",
		"Switch it on (Set-CASMailbox NAME -SmtpClientAuthenticationDisabled $false), or use a connector with a certificate.",
		transcript}},
	{535, "5.7.139", "basic authentication is disabled", nil, meaning{Connector, Administrator,
		"The tenant takes no sign-in by user name and password.",
		useOtherIdentity, transcript}},
	{535, "5.7.139", "security defaults policy", nil, meaning{Connector, Administrator,
		"The tenant's security defaults lock this account out of SMTP.",
		useOtherIdentity, secondHand}},
	{535, "5.7.139", "did not meet the criteria", nil, meaning{Connector, Administrator,
		"Conditional Access refuses the sign-in, often because of the place it comes from.",
		"Exclude the account from the policy or allow the office's address in it.",
		transcript}},
	{535, "5.7.139", "sts service was unreachable", nil, meaning{Temporary, Administrator,
		"The organisation's own federation service (AD FS) cannot be reached by Microsoft.",
		"Repair AD FS.", printers}},
	{535, "5.7.142-143", "", nil, meaning{Connector, Cloud,
		"The token of the sign-in is expiring or has expired.",
		"Nothing: the next sign-in uses a fresh token.", secondHand}},
	{0, "5.7.144", "", nil, meaning{Connector, Administrator,
		"The application lacks the permission to send by this API.",
		"Grant the permission and the administrator's consent in Entra.", secondHand}},
	{501, "5.5.121-126", "", nil, meaning{Connector, Box,
		"The endpoint could not read the token the box signed in with.",
		"Report it with the trace: the box has made a malformed token.", secondHand}},
	{535, "5.7.3", "", nil, meaning{Connector, Administrator,
		"User name or password is wrong, or the account lacks the right to send.",
		"Check user name and password; for a token check the permission and the service principal's Object ID.",
		printers + "; " + oauthGuide}},
	{0, "5.7.30", "", nil, meaning{Connector, Administrator,
		"The endpoint has ended sign-in by user name and password.",
		"Use a connector with a certificate, or OAuth.", teamBlogBasic}},
	{504, "5.7.4", "", nil, meaning{Connector, Administrator,
		"The endpoint does not know the way of signing in that was used.",
		"Check that host and port are those of the service the account belongs to; report it with the trace.",
		transcript}},

	// senders
	{0, "5.7.60", "", nil, meaning{Sender, Administrator,
		"The account may not send as this sender.",
		"Give the account Send As permission for the address, or set the account's address as the device's sender.",
		printers}},
	{0, "5.2.252", "", nil, meaning{Sender, Administrator,
		"The account may not send as this sender (SendAsDenied).",
		"Give the account Send As permission for the address, or set the account's address as the device's sender.",
		transcript}},
	{0, "5.1.8", "", nil, meaning{Sender, Administrator,
		"The sender is restricted because of outbound spam.",
		"Look under Restricted entities in the Defender portal, find the cause, unblock the address.",
		ndrTable}},
	{0, "5.7.750", "", nil, meaning{Sender, Administrator,
		"The sender's domain is not one of the tenant's accepted domains.",
		"Add the domain to the tenant, or set a sender of an accepted domain on the device.",
		tenantBlocked}},
	{0, "5.7.23", "", nil, meaning{Sender, Administrator,
		"The sender's domain does not allow this way by SPF.",
		"Add the office's public address and the endpoint's to the domain's SPF record.",
		ndrTable}},
	{0, "5.7.509", "", nil, meaning{Sender, Administrator,
		"The sender's domain refuses mail that fails DMARC.",
		"Mend SPF or DKIM of the sender's domain, or send from an accepted domain.",
		ndrTable}},

	// limits
	{432, "4.3.2", "storedrv.clientsubmit", nil, meaning{Temporary, Administrator,
		"More than three connections at once for one mailbox.",
		"Set connections = 2 on the connector.", submission}},
	{421, "4.4.2", "submission rate", nil, meaning{Temporary, Nobody,
		"More than 30 messages a minute for one mailbox.",
		"Nothing: it is tried again. If it happens daily, use a connector with a certificate.", secondHand}},
	{0, "", "submissionquotaexceeded", nil, dailySubmission},
	{0, "5.1.90", "", nil, dailySubmission},
	{0, "5.2.2", "submission quota", nil, dailySubmission},
	{554, "5.2.2", "quotaexceeded", nil, meaning{Connector, Administrator,
		"The mailbox the box signs in with is full: every message leaves a copy in Sent Items.",
		"Empty Sent Items and set a retention policy for it.", submission}},
	{0, "5.7.232", "", nil, externalLimit},
	{0, "5.7.233", "", nil, externalLimit},
	{0, "5.2.121-122", "", nil, meaning{Temporary, Recipient,
		"The recipient's mailbox gets more messages an hour than the service allows.",
		"Nothing: it is tried again. Spread the mail over more mailboxes if it stays.", ndrTable}},
	{0, "4.5.3", "", nil, meaning{Temporary, Nobody,
		"Too many recipients of one domain in one message.",
		"Nothing: the rest is tried again. Send to at most 100 recipients at once.", ndrTable}},
	{450, "4.2.1", "peak", nil, meaning{Temporary, Nobody,
		"Google's limit of mail in a short time is reached.",
		"Nothing: it is tried again.", googleHelp}},
	{550, "", "daily smtp relay limit exceeded", nil, meaning{Connector, Administrator,
		"Google's daily limit of relayed mail is reached.", waitDaily, googleHelp}},
	{454, "", "maximum sending rate", nil, meaning{Temporary, Nobody,
		"Amazon SES takes fewer messages a second than were sent.",
		"Nothing: it is tried again.", transcript}},
	{454, "", "daily message quota exceeded", nil, meaning{Connector, Administrator,
		"The daily quota at Amazon SES is used up.", waitDaily, transcript}},

	// connectors and tenants
	{0, "5.7.64", "", nil, meaning{Connector, Administrator,
		"No inbound connector of the tenant matches: its certificate name or address has changed, an intermediate certificate is missing, or neither the certificate's name nor the sender's domain is an accepted domain.",
		"Compare Get-InboundConnector with the box's certificate and public address; put the intermediate certificates into the certificate file; see that the certificate's name is an accepted domain.",
		relayDenied}},
	{0, "4.4.62", "", nil, meaning{Connector, Administrator,
		"The mail reached the wrong region of Microsoft 365.",
		"Compare the connector's host with the tenant's MX record.", printers}},
	{0, "5.7.68", "", nil, meaning{Connector, Administrator,
		"The tenant refuses Direct Send.",
		"Make an inbound connector that matches the box's certificate or address.", teamBlogDirect}},
	{0, "5.7.51", "", nil, meaning{Connector, Administrator,
		"A partner connector of the tenant demands a certificate or an address that the box does not have.",
		"Set the certificate the partner connector names, or add the box's public address to it.", transcript}},
	{0, "5.7.711", "", nil, meaning{Connector, Administrator,
		"Microsoft has restricted the inbound connector because of spam.",
		"Find the source of the spam, then Get-BlockedConnector and Remove-BlockedConnector.", powershell}},
	{0, "5.7.705", "", nil, meaning{Connector, Administrator,
		"The tenant is blocked because it sent too much spam.",
		"Find and stop the source, then ask Microsoft's support to lift the block.", tenantBlocked}},
	{0, "5.7.708", "", nil, meaning{Connector, Administrator,
		"Microsoft takes no traffic from this address, as often for trial tenants.",
		"Ask Microsoft's support, or send from another public address.", tenantBlocked}},
	{0, "5.7.240", "", nil, meaning{Connector, Administrator,
		"The application may not use this account for high volume email.",
		"Add it with Add-HVEAppAccess.", secondHand}},

	// addresses of the office and its reputation
	{0, "4.7.500-699", "", nil, meaning{Temporary, Nobody,
		"The service slows down mail from this address.", backsOff, ndrTable}},
	{0, "4.7.850-899", "", nil, meaning{Temporary, Nobody,
		"The service is still getting to know this address.", backsOff, ndrTable}},
	{0, "5.7.606-649", "", nil, meaning{Connector, Administrator,
		"Microsoft bans mail from the office's public address.",
		"Ask for its removal at https://sender.office.com, then retry.", ndrTable}},
	{0, "5.7.511", "", nil, meaning{Connector, Administrator,
		"Microsoft bans mail from the office's public address.",
		"Write to delist@microsoft.com with the reply in full.", ndrTable}},
	{0, "5.7.501-503", "", nil, bannedForSpam},
	{0, "5.7.800", "", nil, bannedForSpam},
	{0, "5.7.506", "", nil, meaning{Connector, Administrator,
		"The endpoint does not take the name the box greets with: it is the endpoint's own.",
		"Set hostname to the box's own full name.", ndrTable}},
	{0, "5.7.25", "", nil, overIPv6},
	{0, "4.7.26", "", nil, overIPv6},
	{0, "5.7.510", "", nil, overIPv6},

	// the service itself
	{451, "4.7.700", "", nil, serviceBusy},
	{451, "4.7.0", "", nil, serviceBusy},
	{0, "4.3.2", "", nil, serviceBusy},

	// recipients and content
	{0, "5.4.1", "", nil, noSuchRecipient},
	{0, "5.1.1", "", nil, noSuchRecipient},
	{0, "5.1.10", "", nil, noSuchRecipient},
	{0, "5.5.105", "", nil, meaning{Permanent, Administrator,
		"High volume email goes to recipients inside the organisation only.",
		"Send external recipients by another connector.", secondHand}},
	{0, "5.7.703", "", nil, meaning{Permanent, Administrator,
		"The tenant's allow/block list forbids a recipient; one such recipient fails the whole message.",
		"Take the address off the Tenant Allow/Block List, or send without it.", tenantBlocked}},
	{0, "5.7.512", "", nil, meaning{Permanent, Device,
		"The message's From header is missing or wrong.",
		"Set a full e-mail address as sender on the device.", ndrTable}},
	{0, "5.6.11", "", nil, meaning{Permanent, Box,
		"The endpoint found characters in the message that mail may not contain (a bare LF).",
		"Report it with the message exported: the box should have repaired it.", ndrTable}},
	{0, "5.4.6", "", nil, routingLoop},
	{0, "5.4.14", "", nil, routingLoop},
}

var (
	dailySubmission = meaning{Connector, Administrator,
		"The mailbox has sent to 10,000 recipients within a day.",
		"Release the mail after 24 hours; spread the devices over more mailboxes; see that the account is not abused.",
		submission + "; " + ndrTable}
	externalLimit = meaning{Connector, Administrator,
		"The tenant has reached its daily limit of external recipients.",
		waitDaily, teamBlogTERRL}
	bannedForSpam = meaning{Connector, Administrator,
		"Microsoft has banned the account or the domain because of spam.",
		"Find and stop the source, then ask Microsoft's support to lift the ban.", ndrTable}
	overIPv6 = meaning{Connector, Administrator,
		"The endpoint's rules for IPv6 (a name for the address, SPF or DKIM) are not met.",
		sendOverIPv4, ndrTable}
	serviceBusy = meaning{Temporary, Cloud,
		"The service is busy or in trouble.",
		"Nothing: it is tried again.", transcript}
	noSuchRecipient = meaning{Permanent, Recipient,
		"There is no such recipient.",
		"Correct the address on the device.", ndrTable}
	routingLoop = meaning{Permanent, Administrator,
		"The mail goes round in circles between servers.",
		"Check that the recipient's domain is not routed back to the box.", ndrTable}
)

// standards are the meanings every SMTP server shares; they come after the endpoints' own.
var standards = []row{
	{530, "", "", nil, signInFirst},
	{503, "", "auth", nil, signInFirst},
	{534, "", "", nil, signInRefused},
	{535, "", "", nil, signInRefused},
	{0, "5.7.8", "", nil, signInRefused},
	{538, "", "", nil, meaning{Connector, Administrator,
		"The endpoint wants TLS before it lets anyone sign in.",
		`Set tls = "verified" on the connector.`, rfc4954}},
	{502, "", "", []Stage{Mail, Rcpt, Data, Final}, meaning{Connector, Administrator,
		"The endpoint does not know the command: it may not be a mail server for this use.",
		"Check host and port of the connector.", rfc5321}},
	{521, "", "", nil, meaning{Connector, Administrator,
		"The host takes no mail at all.",
		"Check host and port of the connector.", rfc7504}},
	{556, "", "", nil, meaning{Permanent, Recipient,
		"The recipient's domain takes no mail.",
		"Correct the address on the device.", rfc7504}},
	{503, "", "", nil, meaning{Temporary, Cloud,
		"The endpoint lost step in the conversation; the next connection sends one command at a time.",
		"Nothing: it is tried again.", rfc5321}},
	{0, "", "no client certificate presented", nil, meaning{Connector, Administrator,
		"The endpoint wants a client certificate, and the connector has none.",
		"Set certificate on the connector, and register it at the endpoint.", postfixSource}},
	{0, "", "client certificate not trusted", nil, meaning{Connector, Administrator,
		"The endpoint does not trust the box's client certificate.",
		"Check that the certificate is in date, issued by an authority the endpoint trusts, and that its file has the intermediate certificates.", postfixSource}},
	{0, "", "relay access denied", nil, relayingDenied},
	{0, "", "unable to relay", nil, relayingDenied},
	{0, "", "relaying denied", nil, relayingDenied},
	{0, "", "relay not permitted", nil, relayingDenied},
	{0, "5.1.7", "", nil, meaning{Sender, Device,
		"The sender's address is not written as an address should be.",
		"Correct the sender on the device.", rfc3463}},
	{0, "5.1.2-3", "", nil, noSuchRecipient3463},
	{0, "5.1.6", "", nil, noSuchRecipient3463},
	{0, "5.2.2", "", nil, meaning{Permanent, Recipient,
		"The recipient's mailbox is full.",
		"Let the recipient make room, then retry.", rfc3463}},
	{0, "4.2.2", "", nil, meaning{Temporary, Recipient,
		"The recipient's mailbox is full.",
		"Nothing: it is tried again while the recipient makes room.", rfc3463}},
	{0, "5.3.4", "", nil, messageTooLarge},
	{0, "5.2.3", "", nil, messageTooLarge},
	{552, "", "", []Stage{Rcpt}, meaning{Temporary, Nobody,
		"The endpoint takes no more recipients in one message.",
		"Nothing: the rest is tried again.", "RFC 5321 section 4.5.3.1.10"}},
	{552, "", "", nil, messageTooLarge},
	{0, "4.3.1", "", nil, storageFull},
	{452, "", "", nil, storageFull},
	{0, "5.6.3", "", nil, meaning{Permanent, Device,
		"The message has 8-bit characters, and the endpoint takes only 7-bit mail.",
		"Send by a connector whose endpoint offers 8BITMIME, or set the device to encode its mail.", "RFC 6152 section 3"}},
	{0, "5.6.7", "", nil, meaning{Permanent, Device,
		"An address or a header has characters beyond ASCII, and the endpoint takes only ASCII.",
		"Use an ASCII address, or a connector whose endpoint offers SMTPUTF8.", "RFC 6531 section 3.4"}},
}

var (
	signInFirst = meaning{Connector, Administrator,
		"The endpoint wants a sign-in before it takes mail.",
		"Set username and password_file on the connector, or use the endpoint meant for relaying.", rfc4954}
	signInRefused = meaning{Connector, Administrator,
		"The endpoint refused the sign-in.",
		"Check user name and password.", rfc4954}
	relayingDenied = meaning{Connector, Administrator,
		"The endpoint does not relay for the box: it does not know it by certificate, address or account.",
		"Register the box's certificate or public address at the endpoint, or set username and password_file.", transcript}
	messageTooLarge = meaning{Permanent, Device,
		"The message is larger than the endpoint takes.",
		"Scan with a lower resolution or fewer pages at once.", rfc3463}
	storageFull = meaning{Temporary, Cloud,
		"The endpoint is short of storage.",
		"Nothing: it is tried again.", rfc3463}
	noSuchRecipient3463 = meaning{Permanent, Recipient,
		"The recipient's address does not exist or is not written as an address should be.",
		"Correct the address on the device.", rfc3463}
)
