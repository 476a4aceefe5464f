package main

import (
	"bytes"
	"fmt"
)

// pdf binds pages, each a JPEG of the whole sheet, into a document (ISO 32000-1, section 7.5).
func pdf(title string, pages [][]byte) []byte {
	var out bytes.Buffer
	var offsets []int
	object := func(format string, arguments ...any) {
		offsets = append(offsets, out.Len())
		fmt.Fprintf(&out, "%d 0 obj\n", len(offsets))
		fmt.Fprintf(&out, format, arguments...)
		out.WriteString("\nendobj\n")
	}
	out.WriteString("%PDF-1.4\n%\xe2\xe3\xcf\xd3\n") // bytes above 127 say that it is binary (section 7.5.2)

	// Objects 1 to 3 are the catalogue, the list of pages and the title; then three for each page.
	const first = 4
	var kids bytes.Buffer
	for i := range pages {
		fmt.Fprintf(&kids, "%d 0 R ", first+3*i)
	}
	object("<< /Type /Catalog /Pages 2 0 R >>")
	object("<< /Type /Pages /Kids [ %s] /Count %d >>", &kids, len(pages))
	object("<< /Title (%s) /Producer (Mailchute demo) >>", title)
	const wide, high = width * 72.0 / dotsPerInch, height * 72.0 / dotsPerInch
	for i, image := range pages {
		page := first + 3*i
		object("<< /Type /Page /Parent 2 0 R /MediaBox [ 0 0 %.2f %.2f ] /Contents %d 0 R /Resources << /XObject << /Scan %d 0 R >> >> >>",
			wide, high, page+1, page+2)
		content := fmt.Sprintf("q %.2f 0 0 %.2f 0 0 cm /Scan Do Q", wide, high)
		object("<< /Length %d >>\nstream\n%s\nendstream", len(content), content)
		object("<< /Type /XObject /Subtype /Image /Width %d /Height %d /ColorSpace /DeviceGray /BitsPerComponent 8 /Filter /DCTDecode /Length %d >>\nstream\n%s\nendstream",
			width, height, len(image), image)
	}
	table := out.Len()
	fmt.Fprintf(&out, "xref\n0 %d\n0000000000 65535 f \n", len(offsets)+1)
	for _, offset := range offsets {
		fmt.Fprintf(&out, "%010d 00000 n \n", offset)
	}
	fmt.Fprintf(&out, "trailer\n<< /Size %d /Root 1 0 R /Info 3 0 R >>\nstartxref\n%d\n%%%%EOF\n", len(offsets)+1, table)
	return out.Bytes()
}
