package config

import (
	"encoding"
	"fmt"
	"net/netip"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"mailchute/appliance/address"
)

// decode fills a value of the types in config.go from the tree, going by their tags, and reports each key that
// is unknown or missing and each value that is of the wrong type or out of its range.
func decode(n *node, into reflect.Value, found *problems) {
	if text, ok := into.Addr().Interface().(encoding.TextUnmarshaler); ok {
		decodeText(n, text, found)
		return
	}
	switch into.Kind() {
	case reflect.Struct:
		decodeTable(n, into, found)
	case reflect.Slice:
		decodeArray(n, into, found)
	case reflect.String:
		if wantKind(n, stringKind, "text in quotes", found) {
			into.SetString(n.text)
		}
	case reflect.Int, reflect.Int64:
		decodeInt(n, into, found)
	default:
		panic("config: no way to decode " + into.Type().String())
	}
}

// defaulter is a table that has defaults.
type defaulter interface{ setDefaults() }

func decodeTable(n *node, into reflect.Value, found *problems) {
	if !wantKind(n, tableKind, "a [table] of its own", found) {
		return
	}
	if table, ok := into.Addr().Interface().(defaulter); ok {
		table.setDefaults()
	}
	fields := reflect.VisibleFields(into.Type())
	known := make([]string, len(fields))
	for i, field := range fields {
		known[i] = field.Tag.Get("toml")
		child := n.child(known[i])
		if child == nil {
			if field.Tag.Get("required") == "true" {
				missing := &node{parent: n, name: known[i], kind: n.kind}
				found.add(n.at, missing.path(), "nothing", "a value, this key is required", "add for example "+sample(field))
			}
			continue
		}
		value := into.FieldByIndex(field.Index)
		decode(child, value, found)
		if child.isBad {
			continue
		}
		if checkTags(child, field, value, found); value.Kind() == reflect.Slice && value.Len() == 0 && field.Tag.Get("required") == "true" {
			found.value(child, "an empty list", "at least one item", "write for example "+sample(field))
		}
	}
	for _, key := range n.order {
		if child := n.child(key); !slices.Contains(known, key) {
			// The value stays out of the message: it may be a secret that has come to the wrong place.
			found.add(child.key, child.path(), "an unknown key", strings.Join(known, ", "), "correct its spelling or remove it")
		}
	}
}

func decodeArray(n *node, into reflect.Value, found *problems) {
	if !wantKind(n, arrayKind, "a list in brackets", found) {
		return
	}
	into.Set(reflect.MakeSlice(into.Type(), len(n.items), len(n.items)))
	for i, item := range n.items {
		decode(item, into.Index(i), found)
	}
}

func decodeText(n *node, into encoding.TextUnmarshaler, found *problems) {
	allowed := allowedTexts[reflect.TypeOf(into).Elem()]
	if !wantKind(n, stringKind, allowed, found) {
		return
	}
	if err := into.UnmarshalText([]byte(n.text)); err != nil {
		what := err.Error()
		if _, isAddr := into.(*netip.Addr); isAddr { // its errors speak of Go's functions
			what = strconv.Quote(clip(n.text))
		}
		found.value(n, what, allowed, "correct it")
	}
}

// allowedTexts says what the values with a form of their own may be.
var allowedTexts = map[reflect.Type]string{
	reflect.TypeFor[Duration]():        `a span of time such as "90s", "30m", "1h30m" or "5d", more than 0 and at most 3650 days`,
	reflect.TypeFor[AddressRange]():    `an IP address such as "192.168.1.40" or a range such as "192.168.2.0/24" or "fd00::/64"`,
	reflect.TypeFor[netip.Addr]():      `an IP address such as "192.168.1.5" or "fd00::5", or ""`,
	reflect.TypeFor[address.Pattern](): `"*", "accepted", a domain such as "contoso.com", or the domains below one as "*.contoso.com"`,
	reflect.TypeFor[address.Scope]():   `an address such as "scanner@contoso.com" or a domain such as "contoso.com"; no senders at all means all`,
}

func decodeInt(n *node, into reflect.Value, found *problems) {
	if !wantKind(n, intKind, "a whole number without quotes", found) {
		return
	}
	// One too large for its type becomes the largest, which no field's range allows.
	number, _ := strconv.ParseInt(strings.TrimPrefix(n.text, "+"), 0, into.Type().Bits())
	into.SetInt(number)
}

// checkTags holds a value against the tags enum, minimum and maximum of its field.
func checkTags(n *node, field reflect.StructField, value reflect.Value, found *problems) {
	if values := field.Tag.Get("enum"); values != "" {
		choices := strings.Split(values, ",")
		if !slices.Contains(choices, value.String()) {
			found.value(n, strconv.Quote(clip(value.String())), `"`+strings.Join(choices, `", "`)+`"`, "choose one of them")
		}
	}
	if maximum := field.Tag.Get("maximum"); maximum != "" {
		low, high := mustInt(field.Tag.Get("minimum")), mustInt(maximum)
		if number := value.Int(); number < low || number > high {
			allowed, do := fmt.Sprintf("a whole number from %d to %d", low, high), "give a number in that range"
			if low == high {
				allowed, do = strconv.FormatInt(low, 10), "give that number"
			}
			found.value(n, clip(n.text), allowed, do)
		}
	}
}

func mustInt(tag string) int64 {
	number, err := strconv.ParseInt(tag, 10, 64)
	if err != nil {
		panic("config: tag: " + err.Error())
	}
	return number
}

// wantKind reports a value that is of another type than it has to be.
func wantKind(n *node, want kind, allowed string, found *problems) bool {
	if n.kind == want {
		return true
	}
	what := string(n.kind)
	switch {
	case n.name == "password_file": // it may be the password
	case n.kind == stringKind:
		what += " " + strconv.Quote(clip(n.text))
	case n.kind != tableKind && n.kind != arrayKind:
		what += " " + clip(n.text)
	}
	do := "make it " + string(want)
	if want == stringKind && n.kind != tableKind && n.kind != arrayKind {
		do = "put it in quotes"
	}
	if want == arrayKind && n.kind == stringKind {
		do = "put it in brackets: [" + strconv.Quote(clip(n.text)) + "]"
	}
	found.value(n, what, allowed, do)
	return false
}

// sample shows how a required key is written.
func sample(field reflect.StructField) string {
	value := field.Tag.Get("example")
	switch field.Type.Kind() {
	case reflect.Slice:
		value = `["` + value + `"]`
	case reflect.String:
		value = strconv.Quote(value)
	}
	return field.Tag.Get("toml") + " = " + value
}
