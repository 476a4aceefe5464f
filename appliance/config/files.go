package config

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
)

// checkFiles looks for the files that the settings name.
func checkFiles(settings *Config, root *node, stateDir string, found *problems) {
	for i, item := range root.given("connector").each {
		connector := &settings.Connectors[i]
		if n := item.given("certificate"); n != nil && connector.Certificate != "" {
			certificate, key := connector.CertificateFiles(stateDir)
			checkFile(n, certificate, isPublic, found)
			checkFile(n, key, isSecret, found)
		}
		if n := item.given("ca_file"); n != nil && connector.CAFile != "" {
			checkFile(n, Path(stateDir, connector.CAFile), isPublic, found)
		}
		if n := item.given("password_file"); n != nil && connector.PasswordFile != "" {
			checkFile(n, Path(stateDir, connector.PasswordFile), isSecret, found)
		}
	}
}

const (
	isPublic = false
	isSecret = true
)

func checkFile(n *node, path string, secret bool, found *problems) {
	// A password that was mistaken for the name of its file must not get into a log.
	name := path
	if n.name == "password_file" {
		name = "a file"
	}
	info, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		found.value(n, name+", which is not there", "the name of a file", "put it there, or correct the name; relative names begin in the state folder")
	case err != nil:
		var fault *fs.PathError
		if errors.As(err, &fault) {
			err = fault.Err
		}
		found.value(n, fmt.Sprintf("%s, which cannot be read: %v", name, err), "a file that the box can read", "correct its owner, mode or name")
	case !info.Mode().IsRegular():
		found.value(n, name+", which is no regular file", "the name of a file", "correct the name")
	case secret && info.Mode().Perm()&0o077 != 0:
		found.value(n, fmt.Sprintf("%s with mode %04o", name, info.Mode().Perm()), "mode 0600: it holds a secret", "chmod 600 the file")
	}
}
