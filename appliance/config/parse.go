package config

import (
	"fmt"
	"io"
	"os"
	"reflect"
)

// maxDocument is what a settings document may have in bytes: some ten thousand devices.
const maxDocument = 1 << 20

// Parse reads a settings document. The error is of type Problems and has all that is wrong with it; file is
// what it calls the document. A Config without error has its defaults filled in, names and numbers in their
// ranges, domains as address.ParseDomain gives them, no contradictions and no duplicates. What the named
// files hold is another matter: see Check.
func Parse(file string, data []byte) (*Config, error) {
	found := &problems{file: file}
	settings, _ := parse(data, found)
	if err := found.asError(); err != nil {
		return nil, err
	}
	return settings, nil
}

// Check is Parse, and looks for the files the settings name as well: that they are there, and that secrets
// are readable by their owner alone.
func Check(file string, data []byte, stateDir string) (*Config, error) {
	found := &problems{file: file}
	settings, root := parse(data, found)
	if root != nil {
		checkFiles(settings, root, stateDir, found)
	}
	if err := found.asError(); err != nil {
		return nil, err
	}
	return settings, nil
}

// Load reads a settings file by Parse. Errors of reading are wrapped (errors.Is with fs.ErrNotExist: a new
// box), those of the document are of type Problems.
func Load(path string) (*Config, error) {
	data, err := Read(path)
	if err != nil {
		return nil, err
	}
	return Parse(path, data)
}

// Read reads a settings file, but no more than Parse would take.
func Read(path string) ([]byte, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("settings: %w", err)
	}
	defer file.Close()
	data, err := io.ReadAll(io.LimitReader(file, maxDocument+1))
	if err != nil {
		return nil, fmt.Errorf("settings: %w", err)
	}
	return data, nil
}

// parse gives the settings and the tree they were read from; the tree is nil where the document is not TOML.
func parse(data []byte, found *problems) (*Config, *node) {
	if len(data) > maxDocument {
		found.add(position{1, 1}, "", "a document of more than 1 MiB", fmt.Sprintf("%d bytes", maxDocument), "shorten it")
		return nil, nil
	}
	data = withoutMark(data)
	root, isTOML := read(data, found)
	if !isTOML {
		return nil, nil
	}
	settings := new(Config)
	decode(root, reflect.ValueOf(settings).Elem(), found)
	validate(settings, root, found)
	if len(found.list) == 0 {
		checkTOML(data, found)
	}
	return settings, root
}
