package config

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

const (
	revisionFolder = "revisions"
	revisionForm   = "20060102T150405.000000Z" // when it was replaced, UTC; sorts by time
	maxRevisions   = 100
)

// Write makes data the settings of a state folder: whole, on disk when it returns, or not at all. What is no
// valid document is refused with Problems. The document before is kept in revisions, under the time it was
// replaced, the latest 100 of them.
func Write(stateDir string, data []byte) error {
	path := filepath.Join(stateDir, FileName)
	if _, err := Parse(path, data); err != nil {
		return err
	}
	before, err := Read(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return err
	case bytes.Equal(before, data):
		return nil
	default:
		if err := keepRevision(stateDir, before, time.Now()); err != nil {
			return fmt.Errorf("keep the earlier settings: %w", err)
		}
	}
	if err := replaceFile(path, data); err != nil {
		return fmt.Errorf("write settings: %w", err)
	}
	return nil
}

func keepRevision(stateDir string, data []byte, now time.Time) error {
	folder := filepath.Join(stateDir, revisionFolder)
	if err := os.MkdirAll(folder, 0o755); err != nil {
		return err
	}
	names, err := revisionNames(folder)
	if err != nil {
		return err
	}
	name := now.UTC().Format(revisionForm) + ".toml"
	// A clock that was set back must not put the newest revision among the old ones, or over one of them.
	if len(names) > 0 && name <= names[len(names)-1] {
		last, err := time.Parse(revisionForm, strings.TrimSuffix(names[len(names)-1], ".toml"))
		if err != nil {
			return err
		}
		name = last.Add(time.Microsecond).Format(revisionForm) + ".toml"
	}
	if err := replaceFile(filepath.Join(folder, name), data); err != nil {
		return err
	}
	for _, old := range names[:max(len(names)+1-maxRevisions, 0)] {
		if err := os.Remove(filepath.Join(folder, old)); err != nil {
			return err
		}
	}
	return nil
}

// revisionNames lists the revisions, the oldest first, and nothing else that lies there.
func revisionNames(folder string) ([]string, error) {
	entries, err := os.ReadDir(folder)
	if err != nil {
		return nil, err
	}
	var names []string
	for _, entry := range entries {
		stamp, isTOML := strings.CutSuffix(entry.Name(), ".toml")
		if _, err := time.Parse(revisionForm, stamp); isTOML && err == nil {
			names = append(names, entry.Name())
		}
	}
	slices.Sort(names)
	return names, nil
}

// replaceFile puts data in place of a file in one step that survives a power cut.
func replaceFile(path string, data []byte) (err error) {
	folder := filepath.Dir(path)
	file, err := os.CreateTemp(folder, "."+filepath.Base(path)+".*")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			os.Remove(file.Name())
		}
	}()
	_, err = file.Write(data)
	err = errors.Join(err, file.Chmod(0o644), file.Sync(), file.Close())
	if err != nil {
		return err
	}
	if err := os.Rename(file.Name(), path); err != nil {
		return err
	}
	return syncFolder(folder)
}

func syncFolder(path string) error {
	folder, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(folder.Sync(), folder.Close())
}
