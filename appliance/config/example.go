package config

import _ "embed"

//go:embed example.toml
var example string

// Example is a document with every key, its default where it has one, and a comment. Parse takes it.
func Example() string { return example }
