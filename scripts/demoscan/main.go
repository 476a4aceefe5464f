// Demoscan writes the scan of the demo: a PDF of three pages that look like scanned paper, a few hundred KB, as an
// office device makes it. The same bytes come out at every run.
package main

import (
	"fmt"
	"os"
	"path/filepath"
)

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: demoscan FILE.pdf")
		os.Exit(2)
	}
	if err := run(os.Args[1]); err != nil {
		fmt.Fprintln(os.Stderr, "demoscan:", err)
		os.Exit(1)
	}
}

// run writes the scan to file, whole or not at all.
func run(file string) error {
	var images [][]byte
	for number, text := range deliveryNote() {
		image, err := scan(text, uint64(number))
		if err != nil {
			return err
		}
		images = append(images, image)
	}
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		return err
	}
	unfinished := file + ".new"
	if err := os.WriteFile(unfinished, pdf("Delivery note 4711", images), 0o644); err != nil {
		return err
	}
	return os.Rename(unfinished, file)
}
