package address

import "errors"

// aLabels gives the A-labels (RFC 5890 2.3.2.1) of a domain that is not ASCII.
func aLabels(string) (string, error) {
	return "", errors.New("only A-labels (xn--...) are taken, write it in these")
}
