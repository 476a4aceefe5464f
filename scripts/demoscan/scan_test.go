package main

import (
	"bytes"
	"fmt"
	"image/jpeg"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"testing"
)

func write(t *testing.T) (file string, document []byte) {
	t.Helper()
	file = filepath.Join(t.TempDir(), "folder", "scan.pdf")
	if err := run(file); err != nil {
		t.Fatal(err)
	}
	document, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return file, document
}

func TestScan(t *testing.T) {
	_, document := write(t)
	if size := len(document); size < 200_000 || size > 900_000 {
		t.Errorf("%d bytes, want a few hundred KB", size)
	}
	if _, again := write(t); !bytes.Equal(document, again) {
		t.Error("two runs differ")
	}
	// Every offset of the cross-reference table leads to its object.
	start := regexp.MustCompile(`startxref\n(\d+)\n%%EOF\n$`).FindSubmatch(document)
	if start == nil {
		t.Fatal("no startxref")
	}
	table, _ := strconv.Atoi(string(start[1]))
	entries := regexp.MustCompile(`(\d{10}) 00000 n \n`).FindAllSubmatch(document[table:], -1)
	if len(entries) != 3+3*pages {
		t.Errorf("%d objects, want %d", len(entries), 3+3*pages)
	}
	for i, entry := range entries {
		offset, _ := strconv.Atoi(string(entry[1]))
		if want := fmt.Sprintf("%d 0 obj\n", i+1); !bytes.HasPrefix(document[offset:], []byte(want)) {
			t.Errorf("at offset %d: %q, want %q", offset, document[offset:offset+10], want)
		}
	}
	// Every stream is as long as it says and every image is one.
	streams := regexp.MustCompile(`/Filter /DCTDecode /Length (\d+) >>\nstream\n`).FindAllSubmatchIndex(document, -1)
	if len(streams) != pages {
		t.Fatalf("%d images, want %d", len(streams), pages)
	}
	for _, stream := range streams {
		length, _ := strconv.Atoi(string(document[stream[2]:stream[3]]))
		end := stream[1] + length
		if !bytes.HasPrefix(document[end:], []byte("\nendstream")) {
			t.Errorf("a stream does not end where it says")
		}
		image, err := jpeg.Decode(bytes.NewReader(document[stream[1]:end]))
		if err != nil {
			t.Fatal(err)
		}
		if size := image.Bounds().Size(); size.X != width || size.Y != height {
			t.Errorf("an image is %v", size)
		}
	}
}

// Every letter of the text can be drawn.
func TestGlyphs(t *testing.T) {
	for _, lines := range deliveryNote() {
		if len(lines) != linesPerPage {
			t.Errorf("%d lines, want %d", len(lines), linesPerPage)
		}
		for _, line := range lines {
			for _, letter := range line {
				if letter != ' ' && glyphs[letter] == "" {
					t.Errorf("no glyph for %q", letter)
				}
			}
		}
	}
}

func TestPDFInfo(t *testing.T) {
	pdfinfo, err := exec.LookPath("pdfinfo")
	if err != nil {
		t.Skip("pdfinfo is not installed; scripts/setup installs it (poppler-utils)")
	}
	file, _ := write(t)
	said, err := exec.Command(pdfinfo, file).CombinedOutput()
	if err != nil || !regexp.MustCompile(`(?m)^Pages: +3$`).Match(said) || !regexp.MustCompile(`\(A4\)`).Match(said) || bytes.Contains(said, []byte("rror")) {
		t.Errorf("%v\n%s", err, said)
	}
}
