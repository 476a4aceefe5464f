package address

import "golang.org/x/net/idna"

// By UTS 46 as browsers and resolvers do, so that what a person typed finds what the DNS holds; ß stays ß.
var profile = idna.New(idna.MapForLookup(), idna.Transitional(false), idna.BidiRule(), idna.StrictDomainName(false))

func aLabels(domain string) (string, error) { return profile.ToASCII(domain) }
