package address

import (
	"iter"
	"strings"
)

// Pattern says which recipient domains go somewhere. It is comparable and fits as key of a map; the zero
// value is no pattern.
type Pattern struct {
	reach  reach
	domain string
}

type reach byte

const (
	exactly    reach = iota + 1 // "contoso.com"
	subdomains                  // "*.contoso.com": those below it, at any depth, not itself
	accepted                    // "accepted": the domains the organisation owns in the cloud
	everything                  // "*"
)

// ParsePattern reads "*", "accepted", "contoso.com" or "*.contoso.com". Errors are of type *Error.
func ParsePattern(text string) (Pattern, error) {
	switch {
	case text == "*":
		return Pattern{reach: everything}, nil
	case strings.EqualFold(text, "accepted"):
		return Pattern{reach: accepted}, nil
	}
	name, isWildcard := strings.CutPrefix(text, "*.")
	domain, err := ParseDomain(name)
	if err != nil {
		return Pattern{}, fault(text, "%s", err.(*Error).Reason)
	}
	if isWildcard {
		return Pattern{subdomains, domain}, nil
	}
	return Pattern{exactly, domain}, nil
}

func (p Pattern) String() string {
	switch p.reach {
	case exactly:
		return p.domain
	case subdomains:
		return "*." + p.domain
	case accepted:
		return "accepted"
	case everything:
		return "*"
	}
	return ""
}

// Covering yields every pattern that covers a domain (as in Address.Domain), the most specific first: the
// domain itself, its wildcards from the longest to the shortest, "accepted" where isAccepted, then "*".
func Covering(domain string, isAccepted bool) iter.Seq[Pattern] {
	return func(yield func(Pattern) bool) {
		if !yield(Pattern{exactly, domain}) {
			return
		}
		// A literal has dots too, but nothing is below anything there.
		for parent := domain; !strings.HasPrefix(domain, "["); {
			_, above, found := strings.Cut(parent, ".")
			if !found {
				break
			}
			if parent = above; !yield(Pattern{subdomains, parent}) {
				return
			}
		}
		if isAccepted && !yield(Pattern{reach: accepted}) {
			return
		}
		yield(Pattern{reach: everything})
	}
}

// MarshalText writes what UnmarshalText, which is ParsePattern, reads.
func (p Pattern) MarshalText() ([]byte, error) { return []byte(p.String()), nil }

func (p *Pattern) UnmarshalText(text []byte) (err error) {
	*p, err = ParsePattern(string(text))
	return err
}
